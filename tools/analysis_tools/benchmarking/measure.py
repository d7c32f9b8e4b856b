# Copyright (c) greenmim authors. All rights reserved.
"""Time and memory of training steps."""
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import (Callable, Dict, Iterable, List, Optional, Sequence, Tuple,
                    Union)

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from greenmim.ops import MaskPlan
from .contenders import Contender

DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)


def make_optimizer(
        parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the recipes, as one kernel."""
    return torch.optim.AdamW(parameters, lr=1e-5, fused=True)


@dataclass
class Timing:
    """The seconds of every step of a contender."""
    steps: List[float] = field(default_factory=list)
    optimizer: List[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.steps)


@dataclass(frozen=True)
class Stepper:
    """Runs training steps on one batch of images.

    Args:
        images (Tensor): The batch, on the device.
        dtype (str): Precision of the arithmetic by autocast, see ``DTYPES``.
        plan_ahead (bool): Draw and plan masks before the clock starts.
    """
    images: Tensor
    dtype: str = 'fp32'
    plan_ahead: bool = False

    @property
    def device(self) -> torch.device:
        return self.images.device

    def synchronize(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)

    def __call__(
        self,
        contender: Contender,
        optimizer: Optional[torch.optim.Optimizer] = None
    ) -> Tuple[float, float]:
        """Run one step; the seconds of the step and of the optimizer.

        A step is zero_grad, forward, loss and backward.
        """
        mask = contender.draw() if self.plan_ahead else None
        self.synchronize()
        start = time.perf_counter()
        contender.model.zero_grad(set_to_none=True)
        if not self.plan_ahead:
            mask = contender.draw()
        try:
            with torch.autocast(self.device.type, DTYPES[self.dtype],
                                self.dtype != 'fp32'):
                loss = contender.loss(self.images, mask)
            loss.backward()
            self.synchronize()
            stop = time.perf_counter()
            if optimizer is not None:
                optimizer.step()
                self.synchronize()
        except torch.OutOfMemoryError as error:
            raise SystemExit(
                f'{contender.name} ran out of memory on {self.device} with a '
                f'batch of {len(self.images)}; lower --batch-size, add '
                '--with-cp, or take it out of --against.\n'
                f'{error}') from None
        return stop - start, time.perf_counter() - stop


def take_turns(contenders: Sequence[Contender], step: Stepper, warmup: int,
               rounds: int, with_optimizer: bool) -> Dict[str, Timing]:
    """Time all contenders, one step of each after another.

    Args:
        contenders (Sequence[Contender]): The contenders.
        step (Stepper): Runs a step.
        warmup (int): Rounds that do not count.
        rounds (int): Rounds that do.
        with_optimizer (bool): Add a step of fused AdamW, timed by itself.
    """
    timings = {contender.name: Timing() for contender in contenders}
    optimizers = {
        contender.name: make_optimizer(contender.model.parameters())
        for contender in contenders if with_optimizer and not contender.is_part
    }
    for turn in range(warmup + rounds):
        for contender in contenders:
            seconds = step(contender, optimizers.get(contender.name))
            if turn >= warmup:
                timing = timings[contender.name]
                timing.steps.append(seconds[0])
                timing.optimizer.append(seconds[1])
    return timings


def peak_memory(contender: Contender, step: Stepper) -> int:
    """Bytes that a model and a step of it need at once.

    These are weights, activations, gradients and temporary tensors, without
    the optimizer's state.
    """
    model = contender.model
    model.zero_grad(set_to_none=True)
    if step.device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(step.device)
        step(contender)
        return torch.cuda.max_memory_allocated(step.device)
    # What the CPU allocates shows in a trace alone.
    with profile(
            activities=[ProfilerActivity.CPU],
            profile_memory=True) as profiler:
        step(contender)
        # The profiler goes on counting what it does not see freed.
        model.zero_grad(set_to_none=True)
    with TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())['traceEvents']
    allocated = [
        event['args']['Total Allocated'] for event in events
        if event['name'] == '[memory]'
    ]
    weights = [*model.parameters(), *model.buffers()]
    return max(allocated) + sum(tensor.nbytes for tensor in weights)


def peak_memories(contenders: Sequence[Contender],
                  step: Stepper) -> Dict[str, int]:
    """The peak memory of every contender, alone on the device."""
    models = {contender.model for contender in contenders}
    _move(models, 'cpu')
    peaks = {}
    for contender in contenders:
        contender.model.to(step.device)
        peaks[contender.name] = peak_memory(contender, step)
        _move([contender.model], 'cpu')
    _move(models, step.device)
    return peaks


def _move(models: Iterable[nn.Module], device: Union[str,
                                                     torch.device]) -> None:
    for model in models:
        model.zero_grad(set_to_none=True)
        model.to(device)


def time_planning(draw: Callable[[], MaskPlan],
                  rounds: int = 20) -> Tuple[List[float], List[MaskPlan]]:
    """Draw and plan masks; the seconds of each, and the plans."""
    draw()  # what depends on the grid alone is computed once
    seconds, plans = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        plans.append(draw())
        seconds.append(time.perf_counter() - start)
    return seconds, plans
