# Copyright (c) greenmim authors. All rights reserved.
import json
import os
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim.registry import HOOKS
from ..dense_equivalent import time_backbone
from ..energy import EnergyMeter


@HOOKS.register_module()
class RunReportHook(Hook):
    """Shows what a run costs while it runs, and reports it at the end.

    The log gets images per second, the share of the time that waits for
    data, and the share of the group slots that hold a token. ``report.md``,
    ``report.json`` and ``report.png`` in the work folder hold the figures of
    the whole run, its energy, and what the backbone would have taken on all
    tokens, measured at the end of the run. A resumed run reports what came
    after it was resumed.

    Args:
        watts (float, optional): Power of the machine, where it cannot be
            measured, see :class:`greenmim.engine.energy.EnergyMeter`.
            Defaults to None.
        grams_per_kwh (float): CO2e of the electricity. Defaults to 460, the
            world average of 2022 (IEA, Electricity 2024).
        interval (int): Iterations between samples of the power.
            Defaults to 10.
    """

    # After the timer, before the logger.
    priority = 'NORMAL'

    def __init__(self,
                 watts: Optional[float] = None,
                 grams_per_kwh: float = 460.,
                 interval: int = 10) -> None:
        self.meter = EnergyMeter(watts)
        self.grams_per_kwh = grams_per_kwh
        self.interval = interval
        self.images = self.iterations = 0
        self.data_seconds = self.step_seconds = 0.
        self.fill_rates: List[float] = []
        self.losses: List[float] = []
        self._batch: Optional[dict] = None

    def before_train(self, runner: Runner) -> None:
        self.start = time.perf_counter()
        self.meter.start()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        hub = runner.message_hub
        data = hub.get_scalar('train/data_time').current()
        step = hub.get_scalar('train/time').current()
        samples = (data_batch or {}).get('data_samples') or []
        num_images = len(samples) * get_world_size()
        self._batch = data_batch
        self.iterations += 1
        self.images += num_images
        self.data_seconds += data
        self.step_seconds += step
        hub.update_scalar('train/images_per_second', num_images / step)
        hub.update_scalar('train/data_share', data / step)
        if samples and 'mask_plan' in samples[0]:
            self.fill_rates.append(samples[0].mask_plan.fill_rate)
            hub.update_scalar('train/fill_rate', self.fill_rates[-1])
        if 'train/loss' in hub.log_scalars:
            self.losses.append(float(hub.get_scalar('train/loss').current()))
        if self.iterations % self.interval == 0:
            self.meter.joules()

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the report."""
        if not self.iterations:
            return
        figures = self._figures(runner)
        folder = Path(runner.work_dir)
        text = json.dumps(figures, indent=1)
        (folder / 'report.json').write_text(text + '\n')
        (folder / 'report.md').write_text(_report(figures))
        _draw(self.losses, folder / 'report.png')
        runner.logger.info(f'Report of the run: {folder / "report.md"}')

    def _figures(self, runner: Runner) -> Dict[str, Any]:
        seconds = time.perf_counter() - self.start
        joules = self.meter.joules()
        step = self.step_seconds / self.iterations
        figures: Dict[str, Any] = dict(
            config=os.path.basename(runner.cfg.filename or ''),
            iterations=self.iterations,
            images=self.images,
            hours=seconds / 3600,
            step_seconds=step,
            images_per_second=self.images / seconds,
            data_share=self.data_seconds / self.step_seconds,
            fill_rate=_mean(self.fill_rates),
            first_loss=self.losses[0] if self.losses else None,
            last_loss=_mean(self.losses[-10:]),
            energy_source=self.meter.source or None)
        if joules is not None:
            kwh = joules / 3.6e6
            figures.update(kwh=kwh, kg_co2e=kwh * self.grams_per_kwh / 1000)
        try:
            times = time_backbone(runner, self._batch) if self._batch else None
        except torch.OutOfMemoryError:  # all tokens need several times more
            times = None
        if times is not None:
            more = (times['dense'] - times['visible']) * self.iterations / 3600
            figures.update(
                backbone_seconds=times['visible'],
                dense_backbone_seconds=times['dense'],
                dense_hours=figures['hours'] + more)
        return figures


def _mean(values: List[float]) -> Optional[float]:
    return sum(values) / len(values) if values else None


def _report(figures: Dict[str, Any]) -> str:
    """The page in Markdown."""

    def show(name: str, pattern: str = '{:.3g}') -> str:
        value = figures.get(name)
        return 'not measured' if value is None else pattern.format(value)

    rows = [
        ('config', figures['config'] or 'not from a file'),
        ('iterations, images',
         f'{figures["iterations"]}, {figures["images"]}'),
        ('hours', show('hours')),
        ('seconds of a step', show('step_seconds')),
        ('images per second', show('images_per_second')),
        ('share of the time waiting for data', show('data_share', '{:.1%}')),
        ('group slots that hold a token', show('fill_rate', '{:.1%}')),
        ('loss, first and mean of the last ten',
         f'{show("first_loss", "{:.4f}")}, {show("last_loss", "{:.4f}")}'),
        ('energy, kWh', show('kwh')),
        ('kg CO2e', show('kg_co2e')),
        ('source of the energy', figures['energy_source'] or 'none'),
        ('backbone on visible tokens, s', show('backbone_seconds')),
        ('backbone on all tokens, s', show('dense_backbone_seconds')),
        ('hours with all tokens in the backbone', show('dense_hours')),
    ]
    lines = ['# Report of the run', '', '| | |', '|---|---|']
    lines += [f'| {name} | {value} |' for name, value in rows]
    return '\n'.join(lines + ['', '![The loss](report.png)', ''])


def _draw(losses: List[float], path: Path) -> None:
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4), layout='constrained')
    ax = figure.subplots()
    ax.plot(losses, linewidth=0.8)
    ax.set_xlabel('iteration')
    ax.set_ylabel('loss')
    figure.savefig(path, dpi=100)
