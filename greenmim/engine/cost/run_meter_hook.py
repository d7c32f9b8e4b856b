# Copyright (c) greenmim authors. All rights reserved.
import os
import time
from array import array
from typing import Any, Dict, Optional

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import is_resuming
from greenmim.models.masking.data_samples import read_plan
from ..non_finite import NonFiniteHook
from .energy import GRAMS_PER_KWH, EnergyMeter
from .memory import peak_memory
from .timing import time_backbone, time_planning

# What is measured of every iteration.
SERIES = ('data_seconds', 'step_seconds', 'seconds', 'fill_rates', 'losses')


class _Clock(Hook):
    """Notes when the training step of an iteration begins and ends."""

    # After all other hooks.
    priority = 'LOWEST'

    def __init__(self, meter: 'RunMeterHook') -> None:
        self.meter = meter

    def before_train_epoch(self, runner: Runner) -> None:
        self.meter.exclude_pause()

    def after_val(self, runner: Runner) -> None:
        self.meter.exclude_pause()

    def before_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        self.meter.begin_step()

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        self.meter.end_iteration(runner)


class RunMeterHook(Hook):
    """Measures what a run costs. The forecast and the report are based on it.

    An iteration waits for data, plans masks (unless the data-loading workers
    do), computes the training step, and then measures, logs and saves. The
    log gets the shares of the first three in the time, the images per second,
    and the share of the group slots that hold a token.

    Args:
        watts (float, optional): Power of the machine, if it cannot be
            measured, see :class:`greenmim.engine.cost.EnergyMeter`.
            Defaults to None.
        grams_per_kwh (float): CO2e of the electricity. Defaults to 460, the
            world average of 2022 (IEA, Electricity 2024).
        interval (int): Iterations between samples of the power.
            Defaults to 10.
    """

    # As soon as the step is done and its loss is in the message hub.
    priority = 'ABOVE_NORMAL'

    def __init__(self,
                 watts: Optional[float] = None,
                 grams_per_kwh: float = GRAMS_PER_KWH,
                 interval: int = 10) -> None:
        self.energy = EnergyMeter(watts)
        self.grams_per_kwh = grams_per_kwh
        self.interval = interval
        self.batch: Optional[dict] = None
        self.planning: Dict[str, float] = dict()
        self.planned_by_workers = False
        self._before: Dict[str, Any] = dict()
        self._clear()

    def restart(self) -> None:
        """Forget all measurements and restart the clock."""
        self._clear()
        self.energy.start()
        self.start = self._last = time.perf_counter()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the measurements so far, for the report of a resumed run."""
        if 'optimizer' not in checkpoint or not self.step_seconds:
            return  # of weights alone, or before the first step
        seconds = list(self.seconds)
        if len(seconds) < len(self.step_seconds):  # it saves before it ends
            seconds.append(time.perf_counter() - self._last)
        series = {name: getattr(self, name) for name in SERIES}
        checkpoint['measurements'] = dict(
            self._totals(runner),
            first=self.first_iteration,
            **{
                name: torch.tensor(values, dtype=torch.float32)
                for name, values in dict(series, seconds=seconds).items()
            })

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the measurements of the part of the run before."""
        if is_resuming(runner):
            self._before = dict(checkpoint.get('measurements', {}))

    def _totals(self, runner: Runner) -> Dict[str, Any]:
        """Sums and peaks, those of the run before it was resumed included."""
        before = self._before
        joules = self.energy.joules()
        if joules is not None and before:
            earlier = before['joules']
            joules = None if earlier is None else joules + earlier
        totals: Dict[str, Any] = dict(
            elapsed=time.perf_counter() - self.start +
            before.get('elapsed', 0.),
            joules=joules,
            images=self.images,
            peak_memory=max(peak_memory() or 0,
                            before.get('peak_memory') or 0) or None)
        for hook in runner.hooks:
            if isinstance(hook, NonFiniteHook):
                totals.update(
                    steps_left_out=hook.skipped +
                    before.get('steps_left_out', 0),
                    went_back=hook.rollbacks + before.get('went_back', 0))
        return totals

    def _clear(self) -> None:
        self._before = dict()
        self.first_iteration = 0
        self.images = 0
        self.data_seconds = array('d')
        self.step_seconds = array('d')
        self.seconds = array('d')  # of entire iterations
        self.fill_rates = array('d')
        self.losses = array('d')
        self._rest = 0.

    def before_run(self, runner: Runner) -> None:
        runner.register_hook(_Clock(self))

    def before_train(self, runner: Runner) -> None:
        before = self._before
        self.restart()
        self.first_iteration = runner.iter
        if before:
            self._before = before
            self.first_iteration = before['first']
            self.images = before['images']
            for name in SERIES:
                getattr(self, name).extend(before[name].tolist())

    def exclude_pause(self) -> None:
        """Exclude the time since the last iteration from the next one."""
        self._last = time.perf_counter()

    def begin_step(self) -> None:
        """The batch is loaded: the step begins."""
        self._begin = time.perf_counter()

    def end_iteration(self, runner: Runner) -> None:
        """The iteration ends, after all other hooks."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._rest = self.seconds[-1] - (
            self.data_seconds[-1] + self.step_seconds[-1])
        self._last = now
        if len(self.seconds) % self.interval == 0:
            self.energy.joules()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        self.step_seconds.append(time.perf_counter() - self._begin)
        self.data_seconds.append(self._begin - self._last)
        # The rest of this iteration is not known yet; take the last one's.
        seconds = self.data_seconds[-1] + self.step_seconds[-1] + self._rest
        hub = runner.message_hub
        batch = data_batch or {}
        samples = batch.get('data_samples') or []
        num_images = len(samples) * get_world_size()
        self.images += num_images
        hub.update_scalar('train/images_per_second', num_images / seconds)
        if self.batch is None and samples:
            self.planning = time_planning(runner, batch) or dict()
        plan = read_plan(samples)
        self.planned_by_workers = plan is not None
        # Plans made in the model are not seen here; similar ones were made.
        fill_rate = (
            self.planning.get('fill_rate') if plan is None else plan.fill_rate)
        if fill_rate is not None:
            self.fill_rates.append(fill_rate)
            hub.update_scalar('train/fill_rate', fill_rate)
        self.batch = data_batch
        for name, share in self._shares(self.data_seconds[-1:],
                                        self.step_seconds[-1:],
                                        seconds).items():
            hub.update_scalar(f'train/{name}', share)
        if 'train/loss' in hub.log_scalars:
            self.losses.append(float(hub.get_scalar('train/loss').current()))

    def _shares(self, data: array, steps: array,
                seconds: float) -> Dict[str, float]:
        plan = 0.
        if self.planning and not self.planned_by_workers:
            plan = min(self.planning['seconds'] * len(steps), sum(steps))
        return dict(
            data_share=sum(data) / seconds,
            plan_share=plan / seconds,
            compute_share=(sum(steps) - plan) / seconds)

    def figures(self,
                runner: Runner,
                iterations: Optional[int] = None) -> Dict[str, Any]:
        """The measurements, or their extrapolation to another number of steps.

        Times are in seconds or hours, memory in bytes; what is not known is
        None.
        """
        number = len(self.seconds)
        totals = self._totals(runner)
        seconds, joules = totals.pop('elapsed'), totals.pop('joules')
        factor = 1. if iterations is None else iterations / number
        figures: Dict[str, Any] = dict(
            config=os.path.basename(runner.cfg.filename or ''),
            iterations=iterations or number,
            first_iteration=self.first_iteration,
            hours=seconds * factor / 3600,
            step_seconds=seconds / number,
            images_per_second=self.images / seconds,
            **dict(totals, images=round(self.images * factor)),
            **self._shares(self.data_seconds, self.step_seconds,
                           sum(self.seconds)),
            plan_seconds=self.planning.get('seconds'),
            planned_by_workers=self.planned_by_workers,
            fill_rate=sum(self.fill_rates) /
            len(self.fill_rates) if self.fill_rates else None,
            energy_source=self.energy.source or None)
        if joules is not None:
            kwh = joules * factor / 3.6e6
            figures.update(kwh=kwh, kg_co2e=kwh * self.grams_per_kwh / 1000)
        return figures

    def dense_figures(self, runner: Runner,
                      figures: Dict[str, Any]) -> Dict[str, Any]:
        """Time the backbone on the visible tokens and on all tokens.

        The result is empty if the algorithm computes all tokens anyway, if
        they need more memory than there is, or if the model is sharded.
        """
        try:
            times = time_backbone(runner, self.batch) if self.batch else None
        except torch.OutOfMemoryError:  # all tokens need several times more
            times = None
        if times is None:
            return dict()
        more = (times['dense'] - times['visible']) * figures['iterations']
        return dict(
            backbone_seconds=times['visible'],
            dense_backbone_seconds=times['dense'],
            dense_hours=figures['hours'] + more / 3600)
