# Copyright (c) greenmim authors. All rights reserved.
"""What a run will take: hours, memory, batch size, energy.

    greenmim forecast CONFIG [--cfg-options ...]

starts the run as training does, stops after some steps, and
extrapolates. It measures data loading, planning and arithmetic together, on
this machine while nothing else runs on it. Writing checkpoints and the start
of the run are left out. Beside it stands the same backbone computing all
tokens, forward and backward. How many images fit follows from how peak memory
grows in steps on four times as many, or fewer where these would not fit.

    greenmim forecast FORECAST.json --check work_dirs/RUN/report.json

compares what --json has written with the report of the run that followed.
"""
import argparse
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from greenmim.engine.cost.energy import GRAMS_PER_KWH
from greenmim.engine.cost.memory import memory_limit, peak_memory
from greenmim.engine.cost.run_meter_hook import RunMeterHook
from greenmim.engine.cost.timing import synchronize
from greenmim.engine.launch import (build_runner, read_config, set_defaults,
                                    set_options)
from greenmim.engine.use_data import use_data
from greenmim.options import ReadOptions
from .records import record_speed
from .results import environment, write_json

SAMPLES = 32  # that are loaded to time a worker

TOLERANCE = 0.15
"""Largest relative error of a forecast."""


class Enough(Exception):
    """Raised to stop a run that has been measured."""


class Stopwatch(RunMeterHook):
    """Measures some iterations of a run, and stops it."""

    def __init__(self, warmup: int, steps: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.warmup, self.steps = warmup, steps

    def end_iteration(self, runner: Runner) -> None:
        super().end_iteration(runner)
        if self.warmup:
            self.warmup -= 1
            if not self.warmup:
                synchronize()
                self.restart()
        elif len(self.seconds) == self.steps:
            synchronize()
            raise Enough


def forecast(cfg: Config,
             options: Optional[Dict[str, Any]] = None,
             warmup: int = 5,
             steps: int = 20,
             watts: Optional[float] = None,
             grams_per_kwh: float = GRAMS_PER_KWH,
             only: Optional[str] = None) -> Dict[str, Any]:
    """Measure some steps of a run, in a folder that is removed afterwards.

    For the last two arguments and the figures see :class:`.RunMeterHook`.

    Args:
        cfg (Config): The config of the run.
        options (dict, optional): Settings that override the config's.
        warmup (int): Steps before those that are measured.
        steps (int): Steps that are measured.
        only (str, optional): ``'time'`` leaves out how many images fit into
            the memory, and like ``'batch'`` the backbone on all tokens.

    Raises:
        ValueError: If the run ends before the steps are measured.
    """
    stopwatch = Stopwatch(
        warmup, steps, watts=watts, grams_per_kwh=grams_per_kwh)
    with tempfile.TemporaryDirectory() as folder:
        cfg.visualizer, cfg.launcher, cfg.work_dir = None, 'none', folder
        set_defaults(cfg)
        set_options(cfg, options or {})
        cfg.log_level = 'ERROR'
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
            raise ValueError(
                f'the run ended after {len(stopwatch.seconds)} measured '
                f'steps; expected more than {steps} after {warmup}: lower '
                '--steps or --warmup')
        figures = stopwatch.figures(runner, runner.max_iters)
        world_size = int(os.environ.get('WORLD_SIZE', 1))
        figures.update(
            batch_size=runner.train_dataloader.batch_size * world_size,
            median_step_seconds=statistics.median(stopwatch.seconds),
            bytes_per_image=None,
            largest_batch_size=None)
        figures.update(input_figures(runner, figures))
        if only != 'time':
            figures.update(batch_figures(runner, figures['peak_memory']))
        if only is None:
            figures.update(stopwatch.dense_figures(runner, figures))
    return figures


def input_figures(runner: Runner, figures: Dict[str, Any]) -> Dict[str, Any]:
    """What a data-loading worker loads, and how many workers a step needs.

    Some images are loaded in this process, which has as much of a core as a
    worker. A step needs as many workers as load its images while it computes.

    Args:
        runner (Runner): That of the run.
        figures (dict): ``step_seconds`` and ``data_share`` of the run.

    Returns:
        dict: Seconds of a worker for an image, and numbers of workers.
    """
    loader = runner.train_dataloader
    number = min(SAMPLES, len(loader.dataset))
    start = time.perf_counter()
    for i in range(number):
        loader.dataset[i * len(loader.dataset) // number]
    seconds = (time.perf_counter() - start) / number
    computing = figures['step_seconds'] * (1 - figures['data_share'])
    return dict(
        input_seconds=seconds,
        workers=loader.num_workers,
        workers_needed=math.ceil(loader.batch_size * seconds / computing))


def bottleneck(figures: Dict[str, Any]) -> str:
    """Which of computing and loading a step waits for, in words."""
    workers, needed = figures['workers'], figures['workers_needed']
    speed = f'{1 / figures["input_seconds"]:.0f} images/s a worker'
    if workers >= needed:
        return (f'{speed}; computing is the bottleneck, {needed} of {workers} '
                'workers load as fast')
    return (f'{speed}; loading is the bottleneck, {needed} workers instead of '
            f'{workers} (num_workers) would remove it')


def batch_figures(runner: Runner,
                  peak: Optional[int]) -> Dict[str, Optional[int]]:
    """How many images would fill the memory, a tenth left free.

    Steps on some times as many images say how peak memory grows. ``peak`` is
    what the run has needed in its first steps, in bytes. The figures are None
    where the run fills most of the memory already, or needs less than the
    process did before.
    """
    if peak is None:  # not measured
        return dict(bytes_per_image=None, largest_batch_size=None)
    batch = runner.train_dataloader.batch_size
    limit = 0.9 * memory_limit()
    for factor in (4, 2, 1.25):
        number = math.ceil(factor * batch)
        if peak * number / batch < limit:
            break
    else:
        return dict(bytes_per_image=None, largest_batch_size=None)
    for _ in range(3):  # until the allocator's cache stays the same
        run_step(runner, number)
    growth = ((peak_memory() or 0) - peak) / (number - batch)
    if growth <= 0:  # something before the run needed more
        return dict(bytes_per_image=None, largest_batch_size=None)
    return dict(
        bytes_per_image=round(growth),
        largest_batch_size=max(int(batch + (limit - peak) / growth), 0))


def run_step(runner: Runner, number: int) -> None:
    """Forward and backward pass of some images."""
    model, loader = runner.model, runner.train_dataloader
    size = len(loader.dataset)
    batch = loader.collate_fn(
        [loader.dataset[i % size] for i in range(number)])
    model.zero_grad(set_to_none=True)
    batch = model.data_preprocessor(batch, True)
    with runner.optim_wrapper.optim_context(model):
        loss = model.parse_losses(model(**batch, mode='loss'))[0]
    loss.backward()
    model.zero_grad(set_to_none=True)


def show(figures: Dict) -> None:
    """Print the figures in words."""
    speed = f'{figures["images_per_second"]:.1f} images/s'
    rows = dict(
        run=f'{figures["iterations"]} iterations of '
        f'{figures["batch_size"]} images',
        step=f'{figures["step_seconds"]:.3f} s, {speed}, '
        f'{figures["data_share"]:.0%} of it waiting for data, '
        f'{figures["plan_share"]:.1%} planning masks',
        time=f'{figures["hours"]:.2f} hours',
        memory='not measured' if figures['peak_memory'] is None else
        f'{figures["peak_memory"] / 2**30:.2f} GiB at most')
    if 'workers_needed' in figures:
        rows['input'] = bottleneck(figures)
    if 'dense_hours' in figures:
        rows['dense'] = (
            f'{figures["dense_hours"]:.2f} hours with all tokens in '
            'the backbone')
    if figures['fill_rate'] is not None:
        rows['fill rate'] = f'{figures["fill_rate"]:.1%} of the group slots'
    if figures['largest_batch_size'] is not None:
        where = 'GPU' if torch.cuda.is_available() else 'memory'
        rows['batch'] = (
            f'about {figures["largest_batch_size"]} images fit into the '
            f'{where}, each takes {figures["bytes_per_image"] / 2**20:.1f} '
            'MiB')
    if 'kwh' in figures:
        rows['energy'] = (f'{figures["kwh"]:.3g} kWh, '
                          f'{figures["kg_co2e"]:.3g} kg CO2e '
                          f'({figures["energy_source"]})')
    else:
        rows['energy'] = 'not measured here; give the power by --watts'
    for name, text in rows.items():
        print(f'{name + ":":11}{text}')


def check(forecast: Dict, report: Dict) -> bool:
    """Compare with ``report.json`` of the run; is the forecast good enough?"""
    if forecast['iterations'] != report['iterations']:
        raise ValueError(
            f'expected the report of a run of {forecast["iterations"]} '
            f'iterations, got one of {report["iterations"]}; compare with a '
            'run of the same config that was not resumed')
    rows = dict(
        hours=('hours', 1.),
        peak_memory=('peak memory, GiB', 2.**-30),
        kwh=('energy, kWh', 1.))
    print(f'{"":18}{"forecast":>10}{"run":>10}{"error":>9}')
    errors = []
    for key, (name, unit) in rows.items():
        if forecast.get(key) is None or report.get(key) is None:
            print(f'{name:18}  not measured')
            continue
        errors.append(forecast[key] / report[key] - 1)
        print(f'{name:18}{forecast[key] * unit:10.3g}'
              f'{report[key] * unit:10.3g}{errors[-1]:+9.1%}')
    return max(map(abs, errors)) <= TOLERANCE


def parse_args(argv: Optional[Sequence[str]],
               prog: Optional[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        help='the path of the config '
        'file, or of a forecast in JSON to check')
    parser.add_argument(
        '--data', metavar='FOLDER', help='the images, as in tools/train.py')
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
    parser.add_argument(
        '--only',
        choices=('time', 'batch'),
        help='leave out the twin that computes all tokens, and with `time` '
        'also how many images fit')
    parser.add_argument('--json', help='write the figures to this file')
    parser.add_argument(
        '--check',
        metavar='REPORT',
        help='compare with the report.json of the run, and fail where the '
        f'forecast was wrong by more than {TOLERANCE:.0%}%')
    parser.add_argument(
        '--cfg-options', nargs='+', action=ReadOptions, metavar='KEY=VALUE')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Forecast a run, or check a forecast.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        prog (str, optional): The program in its help. Defaults to None, the
            script.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument does not fit.
    """
    args = parse_args(argv, prog)
    if args.config.endswith('.json'):
        figures = json.loads(Path(args.config).read_text())
    else:
        cfg = read_config(args.config)
        if args.data is not None:
            use_data(cfg, args.data)
        figures = forecast(cfg, args.cfg_options, args.warmup, args.steps,
                           args.watts, args.grams_per_kwh, args.only)
        show(figures)
        if args.only != 'batch':
            record_speed(cfg, figures['images_per_second'])
    if args.json:
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        write_json(
            dict(figures, environment=environment(device)), Path(args.json))
        print(f'written: {args.json}')
    if args.check and not check(figures,
                                json.loads(Path(args.check).read_text())):
        raise ValueError(
            f'the forecast was wrong by more than {TOLERANCE:.0%}; was the '
            'machine busy with other things?')
