# Copyright (c) greenmim authors. All rights reserved.
"""Compare pre-trained weights with random ones: the runs and their report."""
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Dict

from matplotlib.figure import Figure

from ..results import origin
from ..results import table as markdown
from .base import (LONGER, MEASURES, SCRATCH, Comparison, Runs, by_method,
                   cost_cells, draw_measure, mean_and_spread, over_seeds,
                   save_figure, verdicts)
from .data import find_labelled_folder
from .runs import seconds_per_iteration


@dataclass
class ScratchComparison(Comparison):
    """Fine-tuning from pre-trained and from random weights.

    Random weights are fine-tuned once more for as long as a pre-training and
    its fine-tuning take together.
    """

    def __post_init__(self) -> None:
        self.folder = find_labelled_folder(self.data, self.work_dir / 'data')
        self.methods = [SCRATCH, LONGER, *self.pretrain]

    def runs_of(self, method: str) -> Runs:
        runs: Runs = {}
        if method in self.pretrain:
            runs['pretraining'] = self.pretraining
        runs['fine_tuning'] = self.fine_tuning
        if method != LONGER:
            runs['frozen'] = self.frozen
        return runs

    def measure_speed(self) -> Dict[str, float]:
        """Seconds of an iteration; under scratch, of the fine-tuning."""
        cfgs = {SCRATCH: self.finetuning_config(SCRATCH, 0, 'speed')}
        for method in self.pretrain:
            cfgs[method] = self.pretraining_config(method, 0, 'speed')
        return seconds_per_iteration(cfgs)

    def report(self) -> dict:
        return dict(
            super().report(), seconds_per_iteration=self.result('speed'))


def table(report: dict, measures: Dict[str, str] = MEASURES) -> str:
    """Accuracies, their differences to scratch, and what they cost."""
    groups = by_method(report['results'])
    header = ('weights', 'pre-training: images', 'seconds', 'CPU seconds',
              *measures.values())
    rows = []
    for method, results in groups.items():
        cost = ['none', '', '']
        if 'pretraining' in results[0]:
            cost = cost_cells(results)
        values = [[result[key] for result in results if key in result]
                  for key in measures]
        rows.append([method, *cost, *map(mean_and_spread, values)])
    scratch = groups[SCRATCH]
    for method, results in groups.items():
        if 'pretraining' in results[0]:
            gains = [[
                one[key] - other[key] for one, other in zip(results, scratch)
            ] for key in measures]
            rows.append([f'{method} − {SCRATCH}', '', '', ''] +
                        [mean_and_spread(gain, '+') for gain in gains])
    return markdown(header, rows)


def text(report: dict) -> str:
    """The table and a sentence of what it shows, and where it was measured."""
    settings, machine = report['settings'], report['environment']
    labels = settings['labels_per_class']
    labels = 'all labels' if labels is None else f'{labels} labels of a class'
    seeds = len({result['seed'] for result in report['results']})
    groups = by_method(report['results'])
    longer = ''
    if LONGER in groups:
        more = groups[LONGER][0]['fine_tuning_run']['iterations']
        longer = (f'"{LONGER}" has {more} iterations, which take the time of '
                  'a pre-training more. ')
    cost = (f'A pre-training has {settings["budget"]:.0f} s of '
            f'{machine["clock"]}.')
    if 'run' in settings:
        cost = f'The weights are those of {settings["run"]}.'
    tunings = [
        result['fine_tuning_run'] for method, results in groups.items()
        for result in results if method != LONGER
    ]
    seconds, cpu_seconds = (
        statistics.mean(run[key] for run in tunings)
        for key in ('seconds', 'cpu_seconds'))
    return (
        f'{table(report)}\n\nTop-1 accuracy in percent on the test images, '
        f'{over_seeds(seeds)}; the differences are '
        f'taken seed by seed. Data: {settings["data"]}, {labels}, drawn anew '
        f'for every seed. {cost} A fine-tuning is the same for all: '
        f'{tunings[0]["iterations"]} iterations, {tunings[0]["images"]:,} '
        f'images, {cpu_seconds:.0f} s of CPU time, {seconds:.0f} s on the '
        f'clock. {longer}Measured on {origin(machine)}.' +
        ''.join(f' {one}' for one in verdicts(report['results'])))


def draw(report: dict,
         file: Path,
         measures: Dict[str, str] = MEASURES,
         unit: str = 'top-1 accuracy, %') -> None:
    """A panel for every measure."""
    figure = Figure(figsize=(3 * len(measures), 3.6), layout='constrained')
    axes = figure.subplots(1, len(measures))
    for ax, (key, title) in zip(axes, measures.items()):
        draw_measure(ax, by_method(report['results']), key, title)
    axes[0].set_ylabel(unit)
    save_figure(figure, file)
