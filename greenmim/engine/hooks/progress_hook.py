# Copyright (c) greenmim authors. All rights reserved.
import atexit
import logging
import sys
import time
from datetime import timedelta
from typing import Any, List, Optional, TextIO, Tuple

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.console import Console
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, TextColumn,
                           TimeElapsedColumn, TimeRemainingColumn)

from greenmim._mmengine import is_training, model_of
from greenmim.registry import HOOKS
from ..loops import batch_size_of
from ..screen import quiet, show


@HOOKS.register_module()
class ProgressHook(Hook):
    """Keeps the screen of a run short: what it does, and how far it is.

    Before the first step it names model, data, length, device and folder.
    Then a terminal shows a progress bar, and a file or pipe a line at
    intervals, with loss, images per second, remaining time and the verdict of
    :class:`LearningHook`. Warnings are shown as well; all other lines of the
    log are in its file only.

    Args:
        interval (int, optional): Iterations between two lines. Defaults to
            None, that of the ``LoggerHook``.
    """

    priority = 'LOWEST'

    def __init__(self, interval: Optional[int] = None) -> None:
        self.interval = interval
        self.bar: Optional[Progress] = None
        self._handlers: List[Tuple[logging.StreamHandler, TextIO]] = []

    def before_run(self, runner: Runner) -> None:
        if is_training(runner):
            quiet(runner.logger)

    def before_train(self, runner: Runner) -> None:
        for text in _summary(runner):
            show(runner.logger, text)
        self._first, self._start = runner.iter, time.perf_counter()
        if self.interval is None:
            intervals = [
                hook.interval for hook in runner.hooks
                if isinstance(hook, LoggerHook)
            ]
            self.interval = intervals[0] if intervals else 100
        if not (is_main_process() and sys.stderr.isatty()):
            return
        self.bar = Progress(
            TextColumn('training'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn('{task.fields[figures]}'),
            console=Console(stderr=True),
            redirect_stdout=sys.stdout.isatty(),
            transient=True)
        self.task = self.bar.add_task(
            '',
            total=runner.max_iters,
            completed=runner.iter,
            figures=_figures(runner, 1))
        self.bar.start()
        # Otherwise the cursor stays hidden after an error.
        atexit.register(self.close)
        # Log handlers write to the terminal; let them write above the bar.
        for handler in runner.logger.handlers:
            stream = getattr(handler, 'stream', None)
            if stream is not None and stream.isatty():
                self._handlers.append((handler, stream))
                handler.setStream(sys.stderr)

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        assert self.interval is not None
        done = runner.iter + 1
        if self.bar is not None:
            self.bar.update(self.task, advance=1, figures=_figures(runner, 1))
        elif (done == self._first + 1 or done == runner.max_iters
              or done % self.interval == 0):
            passed = time.perf_counter() - self._start
            left = passed / (done - self._first) * (runner.max_iters - done)
            show(
                runner.logger, f'{done}/{runner.max_iters}  '
                f'{_figures(runner, self.interval)}  '
                f'{timedelta(seconds=round(left))} left')

    def after_run(self, runner: Runner) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is None:
            return
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers = []
        self.bar.stop()
        self.bar = None
        atexit.unregister(self.close)


def _figures(runner: Runner, interval: int) -> str:
    """Loss, images per second and verdict, as far as they are known."""
    scalars = runner.message_hub.log_scalars
    parts = []
    if 'train/loss' in scalars:
        parts.append(f'loss {scalars["train/loss"].mean(interval):.4f}')
    if 'train/images_per_second' in scalars:
        speed = scalars['train/images_per_second'].mean(interval)
        parts.append(f'{speed:.1f} images/s')
    parts.append(runner.message_hub.runtime_info.get('verdict', ''))
    return '  '.join(filter(None, parts))


def _summary(runner: Runner) -> List[str]:
    """What is trained, on what, how long and where."""
    model, loader = model_of(runner), runner.train_dataloader
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    kinds = [type(model).__name__]
    if hasattr(model, 'backbone'):
        kinds.append(type(model.backbone).__name__)
    dataset = loader.dataset
    root = getattr(dataset, 'data_root', None) or type(dataset).__name__
    processes = get_world_size()
    batch = f'{batch_size_of(loader)} a batch'
    if processes > 1:
        batch += f' in each of {processes} processes'
    length = f'{runner.max_iters} iterations'
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        length += f', {runner.max_epochs} epochs'
    if runner.iter:
        length += f', from {runner.iter + 1} on'
    device = next(model.parameters()).device
    name = (
        torch.cuda.get_device_name(device) if device.type == 'cuda' else
        f'{device.type}, {torch.get_num_threads()} threads')
    return [
        f'model:   {", ".join(kinds)}, {millions:.1f} M parameters',
        f'data:    {len(dataset)} images of {root}, {batch}',
        f'length:  {length}',
        f'device:  {name}',
        f'results: {runner.work_dir}, the log in {runner.log_dir}',
    ]
