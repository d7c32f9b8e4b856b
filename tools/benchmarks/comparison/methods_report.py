# Copyright (c) greenmim authors. All rights reserved.
"""What methods cost and what they learn, as one table and one plot."""
import itertools
import statistics
from pathlib import Path
from typing import List

import matplotlib.pyplot as plt

from .report import COLORS, MEASURES, SCRATCH, by_method, mean_and_spread


def table(report: dict) -> str:
    """A row for every method, and one for random weights if tested."""
    groups = by_method(report['results'])
    measures = measured(report)
    rows = [[
        'method', 'images/s', 'memory, MB', 'images', 'seconds', 'CPU seconds',
        'loss', *(MEASURES[key] for key in measures)
    ]]
    rows.append(['---'] * len(rows[0]))
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
                f'{runs[0]["images"]:,}',
                mean_and_spread([run['seconds'] for run in runs]),
                mean_and_spread([run['cpu_seconds'] for run in runs]),
                f'{first:.3f} to {last:.3f}'
            ]
        values = [
            mean_and_spread([result[key] for result in results])
            for key in measures
        ]
        rows.append([method, *cost, *values])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


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
    if seeds > 1:
        parts.append(f'Mean ± standard deviation over {seeds} seeds.')
    else:
        parts.append('One seed, so that the spread is not known.')
    parts.append(
        'Measured on {hardware}, PyTorch {torch}, MMPretrain '
        '{mmpretrain}, greenmim {greenmim}, {date}.'.format(**machine))
    return f'{table(report)}\n\n{" ".join(parts)}'


def draw(report: dict, file: Path) -> None:
    """Panels for speed, memory, loss and every measure of accuracy."""
    groups = by_method(report['results'])
    colors = dict(zip(groups, itertools.cycle(COLORS)))
    methods, measures = report['methods'], measured(report)
    figure, axes = plt.subplots(
        1,
        3 + len(measures),
        figsize=(2.6 * (3 + len(measures)), 3.4),
        layout='constrained')
    for ax, key, title, unit in ((axes[0], 'images_per_second', 'images/s', 1),
                                 (axes[1], 'memory', 'memory, MB', 1e6)):
        ax.bar(
            list(methods), [method[key] / unit for method in methods.values()],
            color=[colors[name] for name in methods])
        ax.set_title(title, fontsize='medium')
    for method in methods:
        for result in groups[method]:
            run = result['pretraining']
            steps, losses = zip(*run['loss'])
            seconds = [
                step * methods[method]['seconds_per_iteration']
                for step in steps
            ]
            axes[2].plot(
                seconds, [loss / losses[0] for loss in losses],
                color=colors[method],
                linewidth=1)
    axes[2].set_title('loss / first loss', fontsize='medium')
    axes[2].set_xlabel(f's of {report["environment"]["clock"]}')
    for ax, key in zip(axes[3:], measures):
        for x, (method, results) in enumerate(groups.items()):
            values = [result[key] for result in results]
            ax.plot(
                x,
                statistics.mean(values),
                'o',
                color=colors[method],
                markersize=9)
            ax.plot([x + .2] * len(values), values, '.', color='black')
        ax.set_xticks(range(len(groups)), list(groups))
        ax.margins(x=.2)
        ax.set_title(f'{MEASURES[key]}, top-1 %', fontsize='medium')
    for ax in axes:
        if ax is not axes[2]:
            ax.tick_params(axis='x', rotation=35)
        ax.grid(axis='y', alpha=.3)
        ax.spines[['top', 'right']].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)
    plt.close(figure)
