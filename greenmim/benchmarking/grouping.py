# Copyright (c) greenmim authors. All rights reserved.
"""Time and quality of the grouping alone: no model, no images.

A plan holds the index tensors of all stages and shifts of a Swin Transformer
for one mask, or for the masks of a batch. Its time includes drawing the mask.
Eager and sdpa attention need further indices for every head, computed from
the plan on the device once per step; the table shows what they take on the
CPU, for as many images as masks.

The cost of a plan is the sum of n * g^2 over the blocks of the model, for n
groups of g slots. It is compared with a bound: n at least as large as Martello
and Toth (Knapsack Problems, 1990, section 8.3) show for bin packing, and the
best g for that.
"""
import argparse
import statistics
import time
from itertools import cycle, islice, product
from typing import List, Sequence

import torch

from greenmim.engine.cost.timing import time_plans
from greenmim.models.masking import MaskPlanner
from greenmim.ops import (GroupIndex, GroupPlan, GroupPlanner, MaskPlan,
                          StageWindows, Window)
from greenmim.ops.packing import min_groups, min_groups_by_halves
from .pages import grouping_table
from .results import finish

UNIT_SIZE = 32
NUM_HEADS = (4, 8, 16, 32)  # of Swin-B


def time_grouping(image_size: int,
                  window: int,
                  num_masks: int,
                  mask_ratio: float = 0.75,
                  depths: Sequence[int] = (2, 2, 18, 2),
                  rounds: int = 20) -> dict:
    """Time plans of a Swin Transformer, and compare their cost with a bound.

    Images and windows are squares; ``depths`` holds the blocks of each stage.
    """
    kinds = (Window(window, 0, window), Window(window, window // 2, window))
    sides = [2**stage for stage in reversed(range(len(depths)))]
    planner = MaskPlanner(
        GroupPlanner([StageWindows(side, kinds) for side in sides]),
        UNIT_SIZE,
        mask_ratio,
        mask_scope='image')
    size = (image_size, image_size)
    seconds, plans = time_plans(lambda: planner(num_masks, size), rounds)
    return dict(
        image_size=list(size),
        window=window,
        num_masks=num_masks,
        mask_ratio=mask_ratio,
        visible_units=plans[0].layout.num_visible,
        planning_seconds=statistics.median(seconds),
        slowest_seconds=max(seconds),
        index_seconds=statistics.median(map(time_indices, plans)),
        fill_rate=statistics.mean(plan.fill_rate for plan in plans),
        cost_above_bound=statistics.mean(
            cost_above_bound(plan, depths) for plan in plans))


def cost_of(plan: GroupPlan) -> int:
    return plan.num_groups * plan.group_size**2


def bound_of_groups(counts: Sequence[int], size: int) -> int:
    """A lower bound of the number of groups for windows of these sizes."""
    return max(min_groups(counts, size), min_groups_by_halves(counts, size))


def cost_bound(plan: GroupPlan) -> int:
    """No packing of the plan's windows costs less."""
    number = plan.window_of_slot
    counts: List[int] = number[number >= 0].unique(
        return_counts=True)[1].tolist()
    size, tokens = max(counts), sum(counts)
    bound = bound_of_groups(counts, size) * size**2
    while tokens * size < bound:
        size += 1
        bound = min(bound, bound_of_groups(counts, size) * size**2)
    return bound


def cost_above_bound(plan: MaskPlan, depths: Sequence[int]) -> float:
    """The share of the attention cost that exceeds the bound."""
    blocks: List[GroupPlan] = []
    for groups, depth in zip(plan.groups, depths):
        # Blocks with and without shift take turns.
        blocks += islice(cycle(groups.values()), depth)
    bounds = {block: cost_bound(block) for block in set(blocks)}
    cost = sum(map(cost_of, blocks))
    return cost / sum(bounds[block] for block in blocks) - 1


def time_indices(plan: MaskPlan) -> float:
    """Seconds to make the indices of eager and sdpa attention on the CPU."""
    start = time.perf_counter()
    for groups, num_heads in zip(plan.groups, NUM_HEADS):
        for kind in groups.values():
            index = GroupIndex.from_plan(kind, num_heads, torch.device('cpu'))
            index.rows(1), index.bias_of_pair
    return time.perf_counter() - start


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


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    results = [
        time_grouping(*setting, args.mask_ratio, args.depths, args.rounds)
        for setting in product(args.image_size, args.window, args.num_masks)
    ]
    print(grouping_table(results))
    finish(torch.device('cpu'), results, args.json)
