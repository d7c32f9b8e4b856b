# Copyright (c) greenmim authors. All rights reserved.
"""Time and quality of the grouping alone: no model, no images.

A plan holds the index tensors of all stages and shifts of a Swin Transformer
for one mask, or for the masks of a batch. Its time includes drawing the mask.
Eager and sdpa attention need further indices for every head, made of the plan
on the device once a step; what they take on the CPU, for as many images as
masks, is given beside.

The cost of a plan is the sum of n * g^2 over the blocks of the model, for n
groups of g slots. It is compared with a bound: n at least as large as Martello
and Toth (Knapsack Problems, 1990, section 8.3) show for bin packing, and the
best g for that.
"""
import argparse
import statistics
import time
from collections import Counter
from typing import Dict, Iterator, List, Sequence, Tuple

import torch
from benchmarking.measure import time_planning
from benchmarking.report import finish

from greenmim.models.masking import MaskPlanner
from greenmim.ops import (GroupIndex, GroupPlan, GroupPlanner, MaskPlan,
                          StageWindows, Window)

UNIT_SIZE = 32
NUM_HEADS = (4, 8, 16, 32)  # of Swin-B


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--image-size', type=int, nargs='+', default=[224, 512, 1024])
    parser.add_argument('--window', type=int, nargs='+', default=[7, 14])
    parser.add_argument(
        '--num-masks',
        type=int,
        nargs='+',
        default=[1],
        help='masks of a plan: 1 for one that the batch shares, or the batch '
        'size (default: 1)')
    parser.add_argument('--mask-ratio', type=float, default=0.75)
    parser.add_argument(
        '--depths',
        type=int,
        nargs='+',
        default=[2, 2, 18, 2],
        help='blocks of every stage (default: those of Swin-B)')
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--json', help='write the results to this file')
    return parser.parse_args()


def make_planner(window: int, num_stages: int) -> GroupPlanner:
    kinds = (Window(window, 0, window), Window(window, window // 2, window))
    return GroupPlanner([
        StageWindows(2**stage, kinds) for stage in reversed(range(num_stages))
    ])


def plans_of_blocks(plan: MaskPlan,
                    depths: Sequence[int]) -> Iterator[GroupPlan]:
    """The plan of every block; with and without shift take turns."""
    for groups, depth in zip(plan.groups, depths):
        kinds = list(groups.values())
        for block in range(depth):
            yield kinds[block % len(kinds)]


def cost_of(plan: GroupPlan) -> int:
    return plan.num_groups * plan.group_size**2


def min_groups(windows: Dict[int, int], size: int) -> int:
    """A lower bound on the groups of ``size`` slots.

    For any k up to half a group: windows of more than ``size - k`` tokens are
    joined by none of k tokens or more, those of more than half a group not by
    each other, and the rest fills what space they leave.

    Args:
        windows (dict[int, int]): Tokens of a window -> number of windows.
        size (int): Slots of a group, g.
    """
    bounds = []
    for k in [0, *(tokens for tokens in windows if 2 * tokens <= size)]:
        alone = halves = space = rest = 0
        for tokens, number in windows.items():
            if tokens > size - k:
                alone += number
            elif 2 * tokens > size:
                halves += number
                space += number * (size - tokens)
            elif tokens >= k:
                rest += number * tokens
        further = -(-(rest - space) // size)
        bounds.append(alone + halves + max(0, further))
    return max(bounds)


def cost_bound(plan: GroupPlan) -> int:
    """No packing of the plan's windows costs less."""
    number = plan.window_of_slot
    _, counts = number[number >= 0].unique(return_counts=True)
    windows = Counter(counts.tolist())
    size, tokens = max(windows), sum(counts.tolist())
    bound = min_groups(windows, size) * size**2
    while tokens * size < bound:
        size += 1
        bound = min(bound, min_groups(windows, size) * size**2)
    return bound


def cost_above_bound(plan: MaskPlan, depths: Sequence[int]) -> float:
    """The share of the attention cost that exceeds the bound."""
    bounds = {
        kind: cost_bound(kind)
        for groups in plan.groups
        for kind in groups.values()
    }
    blocks = list(plans_of_blocks(plan, depths))
    cost = sum(map(cost_of, blocks))
    return cost / sum(bounds[block] for block in blocks) - 1


def time_indices(plan: MaskPlan) -> float:
    start = time.perf_counter()
    for groups, num_heads in zip(plan.groups, NUM_HEADS):
        for kind in groups.values():
            index = GroupIndex.from_plan(kind, 1, num_heads,
                                         torch.device('cpu'))
            index.rows, index.bias_of_pair
    return time.perf_counter() - start


def benchmark(image_size: int, window: int, num_masks: int,
              args: argparse.Namespace) -> dict:
    planner = MaskPlanner(
        make_planner(window, len(args.depths)),
        UNIT_SIZE,
        args.mask_ratio,
        mask_scope='image')
    seconds, plans = time_planning(
        lambda: planner(num_masks, (image_size, image_size)), args.rounds)
    return dict(
        image_size=[image_size, image_size],
        window=window,
        num_masks=num_masks,
        mask_ratio=args.mask_ratio,
        visible_units=plans[0].layout.num_visible,
        planning_seconds=statistics.median(seconds),
        slowest_seconds=max(seconds),
        index_seconds=statistics.median(map(time_indices, plans)),
        fill_rate=statistics.mean(plan.fill_rate for plan in plans),
        cost_above_bound=statistics.mean(
            cost_above_bound(plan, args.depths) for plan in plans))


def show(results: List[dict]) -> None:
    header: Tuple[str, ...] = ('image px', 'window', 'masks', 'visible units',
                               'plan ms', '(slowest)', 'indices ms', 'fill',
                               'above bound')
    print(''.join(f'{name:>14}' for name in header))
    for row in results:
        cells = (row['image_size'][0], row['window'], row['num_masks'],
                 row['visible_units'], f'{row["planning_seconds"] * 1e3:.2f}',
                 f'{row["slowest_seconds"] * 1e3:.2f}',
                 f'{row["index_seconds"] * 1e3:.2f}',
                 f'{row["fill_rate"]:.1%}', f'{row["cost_above_bound"]:.2%}')
        print(''.join(f'{cell:>14}' for cell in cells))


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    results = [
        benchmark(image_size, window, num_masks, args)
        for image_size in args.image_size for window in args.window
        for num_masks in args.num_masks
    ]
    show(results)
    finish(torch.device('cpu'), results, args.json)


if __name__ == '__main__':
    main()
