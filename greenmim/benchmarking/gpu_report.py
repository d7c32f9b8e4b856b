# Copyright (c) greenmim authors. All rights reserved.
"""Measure a GPU in one process and a limited time, what matters most first.

    python tools/analysis_tools/gpu_report.py --minutes 8
    python tools/analysis_tools/plot_benchmarks.py

Every block of measurements writes a file as soon as it is done. A block that
has a file is left out, so that the same command continues a report. So is a
block that would not end in time, by the time that the blocks before it took.
Where the images of a block do not fit into the memory, half as many are
measured, and the file's name says so. With ``--device cpu`` a part of the
blocks runs with tiny models, to try this program.
"""
import argparse
import gc
import os
import re
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

import torch

from . import attention_cost, kernel_gradient, step_command
from .steps import OutOfMemory

CHECKOUT = Path(__file__).parents[2]
# The tiny models of a CPU.
MICRO = {'swin-base-w7': 'swin-micro-w4', 'convnext-base': 'convnext-micro'}
Tool = Callable[[Sequence[str]], object]


@dataclass(frozen=True)
class Block:
    """Measurements of one file.

    Args:
        purpose (str): The first word of the file's name.
        model (str): What is measured.
        batch_size (int): Images of a step.
        seconds (float): A guess of what it takes. After the first block only
            the ratio to other blocks matters.
        words (tuple[str, ...]): Arguments of the tool.
        condition (str): The end of the name. Defaults to ``''``.
        dtype (str): Precision. Defaults to ``'bf16'``.
        setting (str): The part of the name between model and batch. Defaults
            to ``''``.
        tool (Callable): The ``main`` of the tool. Defaults to that of
            ``benchmark.py``.
    """
    purpose: str
    model: str
    batch_size: int
    seconds: float
    words: Tuple[str, ...] = ()
    condition: str = ''
    dtype: str = 'bf16'
    setting: str = ''
    tool: Tool = step_command.main

    def file(self, batch_size: int, hardware: str) -> str:
        parts = [self.purpose, self.model, self.setting, f'bs{batch_size}']
        parts += [self.dtype + self.condition, hardware]
        return '_'.join(filter(None, parts)) + '.json'


def blocks_of(device: str) -> List[Block]:
    """All blocks, the most important first."""
    on_gpu = device == 'cuda'

    def step(model: str,
             batch_size: int,
             *words: str,
             purpose: str = 'step',
             seconds: float = 15,
             condition: str = '',
             mask_ratio: float = 0.75,
             image_size: int = 224,
             dtype: str = 'bf16',
             on_cpu: bool = False) -> Iterator[Block]:
        timing = ['--plan-ahead', '--warmup', '5', '--rounds', '20']
        recipe = f'greenmim_{model}_8xb256-*_in1k.py'
        if not on_gpu:
            if not on_cpu:
                return
            model, dtype, image_size = MICRO[model], 'fp32', 128
            batch_size //= 64
            timing = ['--plan-ahead', '--warmup', '1', '--rounds', '1']
            recipe = f'quickstart/greenmim_{model}_*_photos-128px.py'
        config, = (CHECKOUT / 'configs').glob(recipe)
        yield Block(purpose, model, batch_size, seconds,
                    (str(config), '--image-size', str(image_size),
                     '--mask-ratio', str(mask_ratio), *timing, *words),
                    condition, dtype, f'{image_size}px_r{mask_ratio}')

    def other(purpose: str, model: str, tool: Tool, *micro: str) -> Block:
        if on_gpu:
            return Block(purpose, model, 256, 20, tool=tool)
        words = ('--rounds', '1', *micro)
        return Block(purpose, model, 1, 20, words, dtype='fp32', tool=tool)

    simmim, alone = ('--against', 'simmim'), ('--against', '')
    whole = (*simmim, '--optimizer', '--breakdown')
    groups = (*alone, '--variants', 'fixed-groups,variable-groups,cpu-groups')
    compiled = (*alone, '--variants', 'compiled,fixed-groups+compiled,'
                'variable-groups+compiled')
    swin = 'swin-base-w7'

    def all_blocks() -> Iterator[Block]:
        yield from step(swin, 256, *whole, seconds=40, on_cpu=True)
        yield from step(swin, 64, *whole, seconds=25)
        yield from step(
            swin,
            256,
            *alone,
            '--mask-scope',
            'batch,image',
            condition='-scopes')
        yield from step(
            swin,
            256,
            *alone,
            '--variants',
            'sdpa,fused',
            condition='-attn',
            on_cpu=True)
        yield from step(swin, 256, *groups, condition='-groups', on_cpu=True)
        yield from step('swin-base-w14', 256, *groups, condition='-groups')
        yield from step(swin, 64, *compiled, condition='-compiled', seconds=90)
        for model in ('swin-tiny-w7', 'swin-base-w14'):
            yield from step(model, 256, *simmim)
        yield from step('swin-tiny-w7', 64, *simmim)
        yield from step('convnext-base', 256)
        yield from step(
            'convnext-base',
            256,
            '--cudnn-benchmark',
            condition='-cudnn',
            on_cpu=True)
        for model in ('twins-svt-base', 'pvt-v2-b2', 'hivit-base',
                      'vit-base-p16', 'twins-pcpvt-base'):
            yield from step(model, 256)
        yield from step('swin-v2-base-w8', 256, image_size=256)
        yield from step('swin-large-w14', 64, *simmim)
        yield other('attention-cost', 'swin', attention_cost.main, '--sizes',
                    '16', '48', '--groups', '1', '2')
        yield other('kernel-gradient', 'convnext-base', kernel_gradient.main)
        yield from step(swin, 256, *simmim, dtype='fp16')
        yield from step(swin, 256, *simmim, mask_ratio=0.6)
        yield from step(swin, 256, *simmim, purpose='memory')
        yield from step(
            swin, 256, *simmim, '--with-cp', purpose='memory', condition='-cp')
        for ratio in (0.5, 0.6, 0.7, 0.75, 0.8, 0.9):
            yield from step(
                'swin-tiny-w7',
                256,
                *simmim,
                purpose='ratio',
                mask_ratio=ratio)
        # About as many visible tokens in a step, whatever the size.
        for size, batch in ((224, 256), (320, 128), (448, 64), (640, 32),
                            (896, 16)):
            yield from step(
                'swin-tiny-w7',
                batch,
                *alone,
                purpose='size',
                image_size=size,
                seconds=10)

    return list(all_blocks())


class Report:
    """Measures blocks until the time is over.

    Args:
        folder (Path): Where the files are written.
        device (str): ``'cuda'`` or ``'cpu'``.
        hardware (str): The last word of the files' names.
        deadline (float): When the time is over, by ``time.monotonic()``.
    """

    def __init__(self, folder: Path, device: str, hardware: str,
                 deadline: float) -> None:
        self.folder = folder
        self.device = device
        self.hardware = hardware
        self.deadline = deadline
        self.failed: List[str] = []
        self._spent, self._guessed = 0., 0.

    def run(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            name = block.file(block.batch_size, self.hardware)
            left = self.deadline - time.monotonic()
            forecast = self.forecast(block)
            if (self.folder / name).exists():
                print(f'{name}: has been measured', flush=True)
            elif forecast > left:
                print(
                    f'{name}: left out, about {forecast:.0f} s of the '
                    f'{max(left, 0):.0f} s that are left',
                    flush=True)
            else:
                print(f'\n{name}: {left:.0f} s are left', flush=True)
                start = time.monotonic()
                self._measure(block, block.batch_size)
                self._spent += time.monotonic() - start
                self._guessed += block.seconds

    def forecast(self, block: Block) -> float:
        """The seconds of a block, if the guesses are as wrong as before."""
        if not self._spent:
            return block.seconds
        return block.seconds * self._spent / self._guessed

    def _measure(self, block: Block, batch_size: int) -> None:
        file = self.folder / block.file(batch_size, self.hardware)
        if file.exists():
            print(f'{file.name}: has been measured', flush=True)
            return
        words = [
            *block.words, '--batch-size',
            str(batch_size), '--device', self.device, '--dtype', block.dtype,
            '--json',
            str(file)
        ]
        fits = True
        try:
            block.tool(words)
        except (OutOfMemory, torch.OutOfMemoryError):
            fits = False
        except (Exception, SystemExit):  # the other blocks may well succeed
            traceback.print_exc()
            self.failed.append(file.name)
        gc.collect()  # models, which are cycles
        if self.device == 'cuda':
            torch.cuda.empty_cache()
        if fits:
            return
        if batch_size == 1:
            print(f'{file.name}: an image does not fit into the memory')
            self.failed.append(file.name)
            return
        print(
            f'{file.name}: {batch_size} images do not fit into the memory; '
            f'measuring {batch_size // 2}',
            flush=True)
        self._measure(block, batch_size // 2)


def stop_at(deadline: float) -> threading.Timer:
    """End the process at a time, whatever it does then.

    The files that are there are complete, since each is written at once.
    """

    def stop() -> None:
        print(
            '\nThe time is over; the last block has no file. The same command '
            'goes on with it.',
            flush=True)
        os._exit(0)

    timer = threading.Timer(max(0., deadline - time.monotonic()), stop)
    timer.daemon = True
    timer.start()
    return timer


def hardware_word(device: str) -> str:
    """The device in a word of a file's name."""
    if device == 'cpu':
        return 'cpu'
    name = torch.cuda.get_device_name().lower()
    return re.sub(r'[^a-z0-9]+', '-', name).strip('-')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--minutes',
        type=float,
        default=8.,
        help='of the whole process; it ends then, whatever it does '
        '(default: %(default)s)')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument(
        '--hardware',
        help='the last word of the files\' names (default: the GPU\'s name)')
    parser.add_argument(
        '--out',
        type=Path,
        default=CHECKOUT / 'benchmarks',
        help='folder of the files (default: benchmarks of this checkout)')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None,
         start: Optional[float] = None) -> None:
    """Measure what there is time for.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        start (float, optional): When the process began, by
            ``time.monotonic()``. Defaults to None, now.

    Raises:
        ValueError: If there is no GPU.
        SystemExit: If a block has failed, after the others.
    """
    args = parse_args(argv)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('expected a GPU, found none; --device cpu tries this '
                         'program with tiny models')
    start = time.monotonic() if start is None else start
    deadline = start + 60 * args.minutes
    timer = stop_at(deadline)
    hardware = args.hardware or hardware_word(args.device)
    report = Report(args.out, args.device, hardware, deadline)
    report.run(blocks_of(args.device))
    timer.cancel()
    if report.failed:
        raise SystemExit(f'failed: {", ".join(report.failed)}')
