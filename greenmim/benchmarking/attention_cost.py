# Copyright (c) greenmim authors. All rights reserved.
"""Measure the coefficients of the cost model that chooses group sizes.

The time of group attention, forward and backward, of n groups of g slots is

    time = logit_seconds * n * (g rounded up to whole tiles)^2
           + slot_seconds * n * g + call_seconds

The ratio of the first two coefficients is the ``overhead`` of
:class:`greenmim.ops.packing.GroupCost`: what a slot costs, padding included,
in units of one logit. They are fitted by least squares to the relative errors
of median times, for tiles of several sides; numbers and sizes of groups vary
independently and take turns.
"""
import argparse
import statistics
import time
from itertools import product
from typing import Any, Callable, Dict, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from greenmim.engine.allocator import grow_segments
from greenmim.engine.cost.timing import synchronize
from greenmim.ops import GroupIndex, GroupPlan, group_attention
from greenmim.ops.packing import round_up
from .results import finish
from .steps import DTYPES

WARMUP = 2
WINDOW = 7  # side of the windows that fill the groups
HEAD = 32  # channels of a head
TILES = (1, 16, 64)
# Slots of an image: 3136 is a whole map of 56 x 56 tokens.
MOST_SLOTS = 4096


def full_groups(num_groups: int, size: int) -> GroupPlan:
    """Groups without padding, each of whole windows and a part of one."""
    slots = torch.arange(num_groups * size)
    groups, place = slots // size, slots % size
    window = groups * -(-size // WINDOW**2) + place // WINDOW**2
    place = place % WINDOW**2
    position = place // WINDOW * (2 * WINDOW - 1) + place % WINDOW
    shape = (num_groups, size)
    return GroupPlan(WINDOW, slots, slots,
                     window.int().view(shape),
                     position.int().view(shape))


def make_step(plan: GroupPlan, memory: Tensor, table: Tensor, batch_size: int,
              backend: str) -> Callable[[], float]:
    """A forward and backward pass of group attention, which returns seconds.

    Queries, keys and values lie in ``memory``, which all steps share.
    """
    num_heads, device = table.shape[1], memory.device
    index = GroupIndex.from_plan(plan, num_heads, device)
    shape = batch_size, len(plan.slot_of_token), 3 * HEAD * num_heads

    def step() -> float:
        qkv = memory[:int(np.prod(shape))].view(shape).requires_grad_()
        table.grad = None
        synchronize(device)
        start = time.perf_counter()
        out = group_attention(qkv, index, table, 1., backend=backend)
        out.sum().backward()
        synchronize(device)
        return time.perf_counter() - start

    return step


def fit(sizes: Sequence[int],
        groups: Sequence[int],
        seconds: Sequence[float],
        tile: int = 1) -> Dict[str, float]:
    """The coefficients for a tile, and the root mean square of the relative
    errors."""
    n, g, t = (np.asarray(x, float) for x in (groups, sizes, seconds))
    rounded = np.array([round_up(size, tile) for size in sizes], float)
    terms = np.stack([n * rounded**2, n * g, np.ones_like(t)], 1) / t[:, None]
    fitted = np.linalg.lstsq(terms, np.ones(len(t)), rcond=None)[0]
    errors = terms @ fitted - 1
    logit, slot, call = map(float, fitted)
    return dict(
        tile=tile,
        logit_seconds=logit,
        slot_seconds=slot,
        call_seconds=call,
        overhead=slot / logit,
        error=float(np.sqrt(np.mean(errors**2))))


def measure(sizes: Sequence[int], groups: Sequence[int], batch_size: int,
            num_heads: int, device: torch.device, dtype: str, backend: str,
            rounds: int) -> dict:
    """Time attention in groups of several numbers and sizes, and fit."""
    cases = [(n, g) for n, g in product(groups, sizes) if n * g <= MOST_SLOTS]
    if len(cases) < 3:
        raise ValueError(
            'expected at least three numbers and sizes of groups with up to '
            f'{MOST_SLOTS} slots together, got {len(cases)}; the fit has '
            'three unknowns')
    most = max(n * g for n, g in cases)
    memory = torch.randn(
        batch_size * most * 3 * HEAD * num_heads,
        dtype=DTYPES[dtype],
        device=device)
    table = torch.randn(
        (2 * WINDOW - 1)**2, num_heads, device=device, requires_grad=True)
    steps = [
        make_step(full_groups(n, g), memory, table, batch_size, backend)
        for n, g in cases
    ]
    turns = [[step() for step in steps] for _ in range(WARMUP + rounds)]
    medians = [statistics.median(times) for times in zip(*turns[WARMUP:])]
    used_groups, used_sizes = zip(*cases)
    fits = [fit(used_sizes, used_groups, medians, tile) for tile in TILES]
    return dict(
        backend=backend,
        dtype=dtype,
        batch_size=batch_size,
        num_heads=num_heads,
        group_sizes=used_sizes,
        num_groups=used_groups,
        seconds=medians,
        fits=fits,
        **min(fits, key=lambda result: result['error']))


def show(result: Dict[str, Any]) -> None:
    for g, n, t in zip(result['group_sizes'], result['num_groups'],
                       result['seconds']):
        fitted = result['logit_seconds'] * n * round_up(g, result['tile'])**2
        fitted += result['slot_seconds'] * n * g + result['call_seconds']
        print(f'{n:4d} groups of {g:3d}: {t * 1e3:8.2f} ms, '
              f'fitted {fitted * 1e3:8.2f} ms')
    for fitted in result['fits']:
        print(f'tiles of {fitted["tile"]:2d}: a slot costs '
              f'{fitted["overhead"]:.1f} logits, errors of '
              f'{fitted["error"]:.1%}')
    print(f'best: tile={result["tile"]}, overhead={result["overhead"]:.1f}')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--device',
        type=torch.device,
        default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='fp32',
        help='precision of queries, keys and values; use that of the training')
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='as in training: a GPU is done with few images before the next '
        'kernel has been launched')
    parser.add_argument('--num-heads', type=int, default=16)
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        default=[*range(16, 209, 16)],
        help='slots of a group')
    parser.add_argument(
        '--groups',
        type=int,
        nargs='+',
        default=[1, 4, 16],
        help='numbers of groups, each with every size up to '
        f'{MOST_SLOTS} slots together')
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--json', help='write the results to this file')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    grow_segments()
    torch.manual_seed(0)
    result = measure(args.sizes, args.groups, args.batch_size, args.num_heads,
                     args.device, args.dtype, args.backend, args.rounds)
    show(result)
    finish(args.device, [result], args.json)
