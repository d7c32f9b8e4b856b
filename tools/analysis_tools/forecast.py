# Copyright (c) greenmim authors. All rights reserved.
"""What a run will take: hours, memory, batch size, energy.

    python tools/analysis_tools/forecast.py CONFIG [--cfg-options ...]

starts the run as tools/train.py does, stops after some steps, and
extrapolates. It measures data loading, planning and arithmetic together, on
this machine while nothing else runs on it. Writing checkpoints and the start
of the run are left out. Beside it stands the same backbone computing all
tokens, forward and backward.
"""
import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional

import torch
from benchmarking.report import environment
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim.engine.dense_equivalent import synchronize, time_backbone
from greenmim.engine.energy import EnergyMeter
from greenmim.engine.launch import build_runner, merge_common_arguments

# World average of electricity generation in 2022, grams of CO2 per kWh (IEA,
# Electricity 2024). Take that of your supplier.
GRAMS_PER_KWH = 460.


class Enough(Exception):
    """Raised to stop a run that has been measured."""


class Stopwatch(Hook):
    """Times the steps of a run, and stops it."""

    priority = 'LOWEST'

    def __init__(self, warmup: int, steps: int, meter: EnergyMeter) -> None:
        self.warmup, self.steps, self.meter = warmup, steps, meter
        self.times: List[float] = []
        self.data_times: List[float] = []
        self.fill_rates: List[float] = []
        self.joules: Optional[float] = None
        self.seconds = 0.
        self._count = 0

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        if self._count == self.warmup:
            synchronize()
            self.meter.start()
            self._begin = time.perf_counter()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        self._count += 1
        if self._count > self.warmup:
            hub = runner.message_hub
            self.times.append(hub.get_scalar('train/time').current())
            self.data_times.append(hub.get_scalar('train/data_time').current())
            sample = data_batch['data_samples'][0]
            if 'mask_plan' in sample:
                self.fill_rates.append(sample.mask_plan.fill_rate)
        if self._count == self.warmup + self.steps:
            synchronize()
            self.seconds = time.perf_counter() - self._begin
            self.joules = self.meter.joules()
            self.batch = data_batch
            raise Enough


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='the path of the config file')
    parser.add_argument(
        '--steps', type=int, default=20, help='steps that are measured')
    parser.add_argument(
        '--warmup', type=int, default=5, help='steps before them')
    parser.add_argument(
        '--watts',
        type=float,
        help='power of the machine, where it cannot be measured')
    parser.add_argument(
        '--grams-per-kwh',
        type=float,
        default=GRAMS_PER_KWH,
        help='CO2e of your electricity (default: %(default)g, the world '
        'average of 2022)')
    parser.add_argument('--json', help='write the figures to this file')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def measure(cfg: Config, args: argparse.Namespace) -> Dict:
    """Run the steps; the figures of the run."""
    stopwatch = Stopwatch(args.warmup, args.steps, EnergyMeter(args.watts))
    cfg.default_hooks.checkpoint = ConfigDict(
        type='greenmim.SafeCheckpointHook', interval=-1, save_last=False)
    cfg.resume, cfg.load_from = False, None
    runner = build_runner(cfg)
    runner.register_hook(stopwatch)
    try:
        runner.train()
    except Enough:
        pass
    else:
        sys.exit(f'forecast: the run ended after {len(stopwatch.times)} '
                 f'measured steps; expected more than {args.steps} after '
                 f'{args.warmup}: lower --steps or --warmup')
    step = stopwatch.seconds / args.steps
    world_size = int(os.environ.get('WORLD_SIZE', 1))
    batch = runner.train_dataloader.batch_size * world_size
    seconds = step * runner.max_iters
    figures = dict(
        iterations=runner.max_iters,
        batch_size=batch,
        step_seconds=step,
        median_step_seconds=statistics.median(stopwatch.times),
        images_per_second=batch / step,
        data_share=sum(stopwatch.data_times) / sum(stopwatch.times),
        fill_rate=statistics.mean(stopwatch.fill_rates)
        if stopwatch.fill_rates else None,
        hours=seconds / 3600,
        **memory_figures(runner),
        energy_source=stopwatch.meter.source or None)
    if stopwatch.joules is not None:
        kwh = stopwatch.joules / args.steps * runner.max_iters / 3.6e6
        figures.update(kwh=kwh, kg_co2e=kwh * args.grams_per_kwh / 1000)
    times = time_backbone(runner, stopwatch.batch)
    if times is not None:
        more = (times['dense'] - times['visible']) * runner.max_iters / 3600
        figures.update(
            backbone_seconds=times['visible'],
            dense_backbone_seconds=times['dense'],
            dense_hours=figures['hours'] + more)
    return figures


def memory_figures(runner: Runner) -> Dict:
    """Peak memory, and on a GPU the batch that would fill it."""
    if not torch.cuda.is_available():
        unit = 1 if sys.platform == 'darwin' else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return dict(peak_memory=peak, largest_batch_size=None)
    peak = torch.cuda.max_memory_allocated()
    # What does not grow with the batch: weights, gradients, moments.
    fixed = 4 * sum(p.nbytes for p in runner.model.parameters())
    total = torch.cuda.get_device_properties(0).total_memory
    batch = runner.train_dataloader.batch_size
    # A tenth stays free for fragments and the context.
    largest = int(batch * (0.9 * total - fixed) / max(peak - fixed, 1))
    return dict(peak_memory=peak, largest_batch_size=largest)


def show(figures: Dict) -> None:
    """Print the figures in words."""
    gib = figures['peak_memory'] / 2**30
    speed = f'{figures["images_per_second"]:.1f} images/s'
    rows = dict(
        run=f'{figures["iterations"]} iterations of '
        f'{figures["batch_size"]} images',
        step=f'{figures["step_seconds"]:.3f} s, {speed}, '
        f'{figures["data_share"]:.0%} of it waiting for data',
        time=f'{figures["hours"]:.2f} hours',
        memory=f'{gib:.2f} GiB at most')
    if 'dense_hours' in figures:
        rows['dense'] = (
            f'{figures["dense_hours"]:.2f} hours with all tokens in '
            'the backbone')
    if figures['fill_rate'] is not None:
        rows['fill rate'] = f'{figures["fill_rate"]:.1%} of the group slots'
    if figures['largest_batch_size'] is not None:
        rows['batch'] = f'about {figures["largest_batch_size"]} images fit'
    if 'kwh' in figures:
        rows['energy'] = (f'{figures["kwh"]:.3g} kWh, '
                          f'{figures["kg_co2e"]:.3g} kg CO2e '
                          f'({figures["energy_source"]})')
    else:
        rows['energy'] = 'not measured here; give the power by --watts'
    for name, text in rows.items():
        print(f'{name + ":":11}{text}')


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    with tempfile.TemporaryDirectory() as folder:
        cfg.visualizer = None
        merge_common_arguments(
            cfg,
            argparse.Namespace(
                config=args.config,
                work_dir=folder,
                launcher='none',
                local_rank=0,
                no_pin_memory=False,
                no_persistent_workers=False,
                cfg_options=args.cfg_options,
                trust_checkpoint=False))
        cfg.log_level = 'ERROR'
        figures = measure(cfg, args)
    show(figures)
    if args.json:
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        report = dict(figures, environment=environment(device))
        Path(args.json).write_text(json.dumps(report, indent=1) + '\n')
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()
