# Copyright (c) greenmim authors. All rights reserved.
"""Measure the coefficient of the cost model that chooses group sizes.

The time of group attention, forward and backward, of n groups of g slots is

    time = logit_seconds * n * g^2 + slot_seconds * n * g

per image. The ratio of the two coefficients is the ``overhead`` of
:class:`greenmim.ops.packing.GroupCost`: what a slot costs, padding included,
in units of one logit. They are fitted by least squares to the relative errors
of median times, group sizes taking turns.
"""
import argparse
import statistics
import time
from typing import Any, Callable, Sequence

import numpy as np
import torch

from greenmim.engine.cost.timing import synchronize
from greenmim.ops import (GroupIndex, GroupPlan, VisibleLayout, Window,
                          group_attention, plan_groups)
from .results import finish

WARMUP = 2


def make_step(plan: GroupPlan, side: int, batch_size: int, num_heads: int,
              device: torch.device, backend: str) -> Callable[[], float]:
    """A forward and backward pass of group attention, which returns seconds.

    The groups hold one window of ``side`` x ``side`` tokens each, heads have
    32 channels.
    """
    index = GroupIndex.from_plan(plan, num_heads, device)
    options: Any = dict(device=device, requires_grad=True)
    tokens = plan.num_groups * plan.group_size
    qkv = torch.randn(batch_size, tokens, 3 * 32 * num_heads, **options)
    table = torch.randn((2 * side - 1)**2, num_heads, **options)

    def step() -> float:
        qkv.grad = table.grad = None
        synchronize(device)
        start = time.perf_counter()
        out = group_attention(qkv, index, table, 1., backend=backend)
        out.sum().backward()
        synchronize(device)
        return time.perf_counter() - start

    return step


def fit(sizes: Sequence[int], groups: Sequence[int],
        seconds: Sequence[float]) -> np.ndarray:
    """The seconds of a logit and of a slot."""
    n, g, t = (np.asarray(x, float) for x in (groups, sizes, seconds))
    terms = np.stack([n * g**2, n * g], 1) / t[:, None]
    return np.linalg.lstsq(terms, np.ones(len(t)), rcond=None)[0]


def measure(windows: Sequence[int], batch_size: int, num_heads: int,
            device: torch.device, backend: str, rounds: int) -> dict:
    """Time attention in windows of several sides, and fit the coefficients."""
    plans, steps = [], []
    for side in windows:
        grid = (max(1, 56 // side), max(1, 56 // side))
        layout = VisibleLayout.from_mask(torch.zeros(1, *grid))
        plans.append(plan_groups(layout, side, Window(side, 0, side)))
        assert plans[-1].group_size == side**2
        steps.append(
            make_step(plans[-1], side, batch_size, num_heads, device, backend))
    turns = [[step() for step in steps] for _ in range(WARMUP + rounds)]
    medians = [statistics.median(times) for times in zip(*turns[WARMUP:])]
    sizes = [plan.group_size for plan in plans]
    groups = [plan.num_groups for plan in plans]
    logit, slot = fit(sizes, groups, medians)
    return dict(
        backend=backend,
        batch_size=batch_size,
        num_heads=num_heads,
        group_sizes=sizes,
        num_groups=groups,
        seconds=medians,
        logit_seconds=logit,
        slot_seconds=slot,
        overhead=slot / logit)


def show(result: dict) -> None:
    for g, n, t in zip(result['group_sizes'], result['num_groups'],
                       result['seconds']):
        fitted = result['logit_seconds'] * n * g**2
        fitted += result['slot_seconds'] * n * g
        print(f'{n:4d} groups of {g:3d}: {t * 1e3:8.2f} ms, '
              f'fitted {fitted * 1e3:8.2f} ms')
    print(f'overhead: a slot costs {result["overhead"]:.1f} logits')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', type=torch.device, default='cpu')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--num-heads', type=int, default=16)
    parser.add_argument(
        '--windows',
        type=int,
        nargs='+',
        default=[4, 5, 6, 7, 8, 10, 12, 14],
        help='sides of the windows, whose squares are the group sizes')
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--json', help='write the results to this file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    result = measure(args.windows, args.batch_size, args.num_heads,
                     args.device, args.backend, args.rounds)
    show(result)
    finish(args.device, [result], args.json)
