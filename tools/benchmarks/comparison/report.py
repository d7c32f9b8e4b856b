# Copyright (c) greenmim authors. All rights reserved.
"""The results of all runs as one table and one plot."""
import itertools
import platform
import re
import statistics
from datetime import date
from pathlib import Path
from typing import Dict, List, Sequence

import matplotlib.pyplot as plt
import mmpretrain
import torch

from greenmim.version import __version__

# Random weights, fine-tuned as long as others, and longer by the time of a
# pre-training.
SCRATCH, LONGER = 'scratch', 'scratch, longer'
MEASURES = dict(fine_tuning='fine-tuning', linear='linear probe', knn='k-NN')
BEGIN, END = '<!-- comparison:begin -->', '<!-- comparison:end -->'
COLORS = ('#9a9a9a', '#4a4a4a', '#2a9d5c', '#2a6f97', '#e9a23b', '#c8553d')


def environment() -> Dict[str, str]:
    """What the results depend on beside the settings."""
    if torch.cuda.is_available():
        hardware, clock = torch.cuda.get_device_name(), 'wall-clock time'
    else:
        hardware = f'{_cpu_name()}, CPU threads: {torch.get_num_threads()}'
        clock = 'CPU time'
    return dict(
        hardware=hardware,
        clock=clock,
        date=date.today().isoformat(),
        torch=torch.__version__,
        mmpretrain=mmpretrain.__version__,
        greenmim=__version__)


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*: (.*)$',
                       info.read_text('utf-8') if info.exists() else '', re.M)
    return names[0] if names else platform.machine()


def by_method(results: Sequence[dict]) -> Dict[str, List[dict]]:
    """The results of each method, seed by seed."""
    groups: Dict[str, List[dict]] = {}
    for result in results:
        groups.setdefault(result['method'], []).append(result)
    return groups


def mean_and_spread(values: Sequence[float], sign: str = '') -> str:
    if not values:
        return ''
    spread = ''
    if len(values) > 1:
        spread = f' ± {statistics.stdev(values):.1f}'
    return f'{statistics.mean(values):{sign}.1f}{spread}'


def table(report: dict) -> str:
    """Accuracies, their differences to scratch, and what they cost."""
    groups = by_method(report['results'])
    rows = [[
        'weights', 'pre-training: images', 'seconds', 'CPU seconds',
        *MEASURES.values()
    ]]
    rows.append(['---'] * len(rows[0]))
    for method, results in groups.items():
        cost = ['none', '', '']
        if 'pretraining' in results[0]:
            runs = [result['pretraining'] for result in results]
            cost = [
                f'{runs[0]["images"]:,}',
                mean_and_spread([run['seconds'] for run in runs]),
                mean_and_spread([run['cpu_seconds'] for run in runs])
            ]
        values = [[result[key] for result in results if key in result]
                  for key in MEASURES]
        rows.append([method, *cost, *map(mean_and_spread, values)])
    scratch = groups[SCRATCH]
    for method, results in groups.items():
        if 'pretraining' in results[0]:
            gains = [[
                one[key] - other[key] for one, other in zip(results, scratch)
            ] for key in MEASURES]
            rows.append([f'{method} − {SCRATCH}', '', '', ''] +
                        [mean_and_spread(gain, '+') for gain in gains])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def text(report: dict) -> str:
    """The table and a sentence of what it shows, and where it was measured."""
    settings, machine = report['settings'], report['environment']
    labels = settings['labels_per_class']
    labels = 'all labels' if labels is None else f'{labels} labels of a class'
    seeds = len({result['seed'] for result in report['results']})
    groups = by_method(report['results'])
    longer = groups[LONGER][0]['fine_tuning_run']
    tunings = [
        result['fine_tuning_run'] for method, results in groups.items()
        for result in results if method != LONGER
    ]
    seconds, cpu_seconds = (
        statistics.mean(run[key] for run in tunings)
        for key in ('seconds', 'cpu_seconds'))
    origin = ('{hardware}, PyTorch {torch}, MMPretrain {mmpretrain}, greenmim '
              '{greenmim}, {date}'.format(**machine))
    return (
        f'{table(report)}\n\nTop-1 accuracy in percent on the test images, '
        f'mean ± standard deviation over {seeds} seeds; the differences are '
        f'taken seed by seed. Data: {settings["data"]}, {labels}, drawn anew '
        f'for every seed. A pre-training has {settings["budget"]:.0f} s of '
        f'{machine["clock"]}. A fine-tuning is the same for all: '
        f'{tunings[0]["iterations"]} iterations, {tunings[0]["images"]:,} '
        f'images, {cpu_seconds:.0f} s of CPU time, {seconds:.0f} s on the '
        f'clock. "{LONGER}" has {longer["iterations"]} iterations, which take '
        f'the time of a pre-training more. Measured on {origin}.')


def write_text(content: str, file: Path) -> None:
    """Write a file, or the part of it between the marked lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    block = f'{BEGIN}\n{content}\n{END}\n'
    if file.exists():
        old = file.read_text('utf-8')
        pattern = f'{BEGIN}\n.*?{END}\n'
        if not re.search(pattern, old, re.S):
            raise ValueError(f'expected the lines {BEGIN} and {END} in {file}')
        block = re.sub(pattern, lambda _: block, old, flags=re.S)
    file.write_text(block, 'utf-8')


def draw(report: dict, file: Path) -> None:
    """A panel for every measure: mean, spread, and every seed beside."""
    groups = by_method(report['results'])
    figure, axes = plt.subplots(
        1, len(MEASURES), figsize=(9, 3.6), layout='constrained')
    colors = dict(zip(groups, itertools.cycle(COLORS)))
    for ax, (key, title) in zip(axes, MEASURES.items()):
        measured = {
            method: [result[key] for result in results]
            for method, results in groups.items() if key in results[0]
        }
        for x, (method, values) in enumerate(measured.items()):
            spread = statistics.stdev(values) if len(values) > 1 else 0
            style = dict(color=colors[method], capsize=7, markersize=9)
            ax.errorbar(x, statistics.mean(values), spread, fmt='o', **style)
            ax.plot([x + .2] * len(values), values, '.', color='black')
        ax.set_xticks(range(len(measured)), measured, rotation=20)
        ax.margins(x=.2)
        ax.set_title(title, fontsize='medium')
        ax.grid(axis='y', alpha=.3)
        ax.spines[['top', 'right']].set_visible(False)
    axes[0].set_ylabel('top-1 accuracy, %')
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)
