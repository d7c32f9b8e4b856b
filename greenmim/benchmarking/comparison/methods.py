# Copyright (c) greenmim authors. All rights reserved.
"""What methods cost and what they learn: the runs and their report."""
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Dict, List

import numpy as np
from matplotlib.figure import Figure

from ..results import origin
from ..results import table as markdown
from .base import (MEASURES, SCRATCH, Comparison, Run, Runs, by_method,
                   colours_of, cost_cells, draw_measure, mean_and_spread,
                   over_seeds, save_figure, verdicts)
from .data import find_labelled_folder, labelled_part, unpack
from .runs import memory_of_step, train


@dataclass
class MethodComparison(Comparison):
    """Pre-trainings, whose weights are evaluated if there are labels."""
    with_fine_tuning: bool = False

    def __post_init__(self) -> None:
        unpacked = unpack(self.data, self.work_dir / 'data')
        top = labelled_part(unpacked)
        if top is None and self.with_fine_tuning:
            # Without it, class folders might be folders of another kind.
            try:
                top = find_labelled_folder(unpacked, self.work_dir / 'data')
            except ValueError as error:
                raise ValueError(
                    f'--fine-tuning needs labels: {error}') from error
        self.labelled = top is not None
        self.folder = top or unpacked.resolve()
        self.methods = [SCRATCH] * self.labelled + list(self.pretrain)

    def runs(self) -> Dict[str, Run]:
        memory: Dict[str, Run] = {
            f'{method}_memory': partial(self.measure_memory, method)
            for method in self.pretrain
        }
        return {**memory, **super().runs()}

    def runs_of(self, method: str) -> Runs:
        runs: Runs = {}
        if method != SCRATCH:
            runs['pretraining'] = self.pretraining
        if self.labelled:
            runs['frozen'] = self.frozen
        if self.with_fine_tuning:
            runs['fine_tuning'] = self.fine_tuning
        return runs

    def measure_memory(self, method: str) -> dict:
        """Bytes of a training step."""
        cfg = self.pretraining_config(method, 0, 'memory')
        return dict(memory=memory_of_step(cfg))

    def pretraining(self, method: str, seed: int) -> dict:
        if self.labelled:
            return super().pretraining(method, seed)
        cfg = self.pretraining_config(method, seed, 'pretraining')
        cfg.train_cfg.max_iters = self.iterations(method)
        return train(cfg)[1]

    def report(self) -> dict:
        speed, methods = self.result('speed'), {}
        for method in self.pretrain:
            cfg = self.pretraining_config(method, 0, 'speed')
            batch_size = cfg.train_dataloader.batch_size
            methods[method] = dict(
                seconds_per_iteration=speed[method],
                images_per_second=batch_size / speed[method],
                **self.result(f'{method}_memory'))
        return dict(super().report(), methods=methods)


def table(report: dict) -> str:
    """A row for every method, and one for random weights if tested."""
    groups = by_method(report['results'])
    measures = measured(report)
    header = ('method', 'images/s', 'memory, MB', 'images', 'seconds',
              'CPU seconds', 'loss', *(MEASURES[key] for key in measures))
    rows = []
    for method, results in groups.items():
        cost = [''] * 6
        if method != SCRATCH:
            runs = [result['pretraining'] for result in results]
            first, last = (
                statistics.mean(run['loss'][k][1] for run in runs)
                for k in (0, -1))
            cost = [
                f'{report["methods"][method]["images_per_second"]:,.0f}',
                f'{report["methods"][method]["memory"] / 1e6:,.1f}',
                *cost_cells(results), f'{first:.3f} to {last:.3f}'
            ]
        values = [
            mean_and_spread([result[key] for result in results])
            for key in measures
        ]
        rows.append([method, *cost, *values])
    return markdown(header, rows)


def measured(report: dict) -> List[str]:
    """The measures of accuracy that the results have."""
    return [key for key in MEASURES if key in report['results'][0]]


def text(report: dict) -> str:
    """The table, what it shows, and where it was measured."""
    settings, machine = report['settings'], report['environment']
    seeds = len({result['seed'] for result in report['results']})
    parts = [
        f'Data: {settings["data"]}. Images/s of {machine["clock"]} were '
        'measured in turns before the runs, and a pre-training got the '
        f'iterations that fit into {settings["budget"]:.0f} s by them; the '
        'seconds are those that it took. The memory is the peak of a training '
        "step without the optimizer's state. Losses are those of the first "
        'and the last line of the log; those of different targets cannot be '
        'compared.'
    ]
    if measured(report):
        labels = settings['labels_per_class']
        labels = 'all labels' if labels is None else f'{labels} of a class'
        parts.append(
            'Top-1 accuracy in percent on the test images; labels: '
            f'{labels}, drawn anew for every seed. {SCRATCH}: random weights.')
    parts.append(f'{over_seeds(seeds)}.'.capitalize())
    parts += verdicts(report['results'])
    parts.append(f'Measured on {origin(machine)}.')
    return f'{table(report)}\n\n{" ".join(parts)}'


def draw(report: dict, file: Path) -> None:
    """Panels for speed, memory, loss and every measure of accuracy."""
    groups = by_method(report['results'])
    colours = colours_of(groups)
    methods, measures = report['methods'], measured(report)
    number = 3 + len(measures)
    figure = Figure(figsize=(2.6 * number, 3.4), layout='constrained')
    axes = figure.subplots(1, number)
    for ax, key, title, unit in ((axes[0], 'images_per_second', 'images/s', 1),
                                 (axes[1], 'memory', 'memory, MB', 1e6)):
        ax.bar(
            list(methods), [method[key] / unit for method in methods.values()],
            color=[colours[name] for name in methods])
        ax.tick_params(axis='x', rotation=35)
        ax.set_title(title, fontsize='medium')
    for name, method in methods.items():
        for result in groups[name]:
            steps, losses = np.array(result['pretraining']['loss']).T
            axes[2].plot(
                steps * method['seconds_per_iteration'],
                losses / losses[0],
                color=colours[name],
                linewidth=1)
    axes[2].set_title('loss / first loss', fontsize='medium')
    axes[2].set_xlabel(f's of {report["environment"]["clock"]}')
    for ax, key in zip(axes[3:], measures):
        draw_measure(ax, groups, key, f'{MEASURES[key]}, top-1 %')
    save_figure(figure, file)
