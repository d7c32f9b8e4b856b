# Copyright (c) greenmim authors. All rights reserved.
"""Time and memory of training steps of several models."""
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from greenmim.engine.cost.memory import step_memory
from greenmim.engine.cost.timing import synchronize
from .contenders import Contender

DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)


def make_optimizer(
        parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the recipes, as one kernel."""
    return torch.optim.AdamW(parameters, lr=1e-5, fused=True)


class OutOfMemory(SystemExit):
    """A contender needs more memory than the device has."""


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
    """Runs training steps on one batch of images."""
    images: Tensor  # on the device
    dtype: str = 'fp32'  # of the arithmetic by autocast, see DTYPES
    plan_ahead: bool = False  # draw and plan masks before the clock starts

    @property
    def device(self) -> torch.device:
        return self.images.device

    def __call__(
        self,
        contender: Contender,
        optimizer: Optional[torch.optim.Optimizer] = None
    ) -> Tuple[float, float]:
        """Run one step; the seconds of the step and of the optimizer.

        A step is zero_grad, forward, loss and backward.
        """
        mask = contender.draw() if self.plan_ahead else None
        synchronize(self.device)
        start = time.perf_counter()
        contender.model.zero_grad(set_to_none=True)
        if not self.plan_ahead:
            mask = contender.draw()
        try:
            with torch.autocast(self.device.type, DTYPES[self.dtype],
                                self.dtype != 'fp32'):
                loss = contender.loss(self.images, mask)
            loss.backward()
            synchronize(self.device)
            stop = time.perf_counter()
            if optimizer is not None:
                optimizer.step()
                synchronize(self.device)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                f'{contender.name} ran out of memory on {self.device} with a '
                f'batch of {len(self.images)}; lower --batch-size, add '
                '--with-cp, or take it out of --against.\n'
                f'{error}') from None
        return stop - start, time.perf_counter() - stop


def take_turns(contenders: Sequence[Contender], step: Stepper, warmup: int,
               rounds: int, with_optimizer: bool) -> Dict[str, Timing]:
    """Time all contenders, one step of each after another.

    ``with_optimizer`` adds a step of fused AdamW, timed by itself.
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


def peak_memories(contenders: Sequence[Contender],
                  step: Stepper) -> Dict[str, int]:
    """The peak memory of every contender, alone on the device."""
    models = {contender.model for contender in contenders}
    for model in models:
        model.zero_grad(set_to_none=True)
        model.to('cpu')
    peaks = {}
    for contender in contenders:
        model = contender.model.to(step.device)
        peaks[contender.name] = step_memory(model, partial(step, contender),
                                            step.device)
        model.zero_grad(set_to_none=True)
        model.to('cpu')
    for model in models:
        model.to(step.device)
    return peaks
