# Copyright (c) greenmim authors. All rights reserved.
"""Time the gradient of a depthwise kernel: PyTorch's, and a product and a sum
for every tap (:mod:`greenmim.ops.halo_conv`).

The stages are those of ConvNeXt-B, whose kernels have 7 x 7 taps, at 224 px
with 12 of 49 units visible.
"""
import argparse
import statistics
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch

from greenmim.engine.cost.timing import synchronize
from greenmim.models.masking import random_mask
from greenmim.ops import Halo, VisibleLayout
from greenmim.ops.halo_conv import (kernel_gradient_at_once,
                                    kernel_gradient_by_taps)
from .results import finish, table
from .steps import DTYPES

KERNEL = 7
STAGES = {8: 128, 4: 256, 2: 512, 1: 1024}  # tokens of a side: channels
WARMUP = 3


def measure(side: int, channels: int, batch_size: int, device: torch.device,
            dtype: str, rounds: int) -> Dict[str, Any]:
    """Time both ways for one stage, in turns."""
    layout = VisibleLayout.from_mask(random_mask(1, (7, 7), 0.75))
    halo = Halo.from_layout(layout, side, KERNEL // 2, device)
    shape = batch_size, layout.num_visible, side**2, channels
    x, grad = (
        torch.randn(shape, dtype=DTYPES[dtype], device=device)
        for _ in range(2))
    weight = torch.randn(channels, 1, KERNEL, KERNEL, device=device)
    ways: Dict[str, Callable] = dict(
        library=lambda: kernel_gradient_at_once(x, grad, weight, halo),
        taps=lambda: kernel_gradient_by_taps(x, grad.to(weight.dtype), halo))
    seconds: Dict[str, List[float]] = {name: [] for name in ways}
    for turn in range(WARMUP + rounds):
        for name, run in ways.items():
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            if turn >= WARMUP:
                seconds[name].append(time.perf_counter() - start)
    return dict(
        side=side,
        channels=channels,
        batch_size=batch_size,
        dtype=dtype,
        all_seconds=seconds,
        **{
            f'{name}_seconds': statistics.median(times)
            for name, times in seconds.items()
        })


def show(results: List[dict]) -> None:
    rows = [[
        str(result['side']),
        str(result['channels']), f'{result["library_seconds"] * 1e3:.3f}',
        f'{result["taps_seconds"] * 1e3:.3f}'
    ] for result in results]
    print(table(['side', 'channels', 'PyTorch, ms', 'by taps, ms'], rows))


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', type=torch.device, default='cpu')
    parser.add_argument('--dtype', choices=DTYPES, default='fp32')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--json', help='write the results to this file')
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    results = [
        measure(side, channels, args.batch_size, args.device, args.dtype,
                args.rounds) for side, channels in STAGES.items()
    ]
    show(results)
    finish(args.device, results, args.json)
