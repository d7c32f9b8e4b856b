# Copyright (c) greenmim authors. All rights reserved.
"""Table and plot of accuracy over total compute from several comparisons.

Reads what `compare_with_scratch.py --json` wrote, one file for each budget
and number of labels, and replaces the part of a Markdown file between the
lines `<!-- over-compute:begin -->` and `<!-- over-compute:end -->`.
"""
import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Dict, List, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..results import table as markdown
from ..results import write_marked
from .base import COLORS, MEASURES, by_method, mean_and_spread, save_figure

SHOWN = ('fine_tuning', 'linear')  # k-NN judges masked image modelling badly


def rows(report: dict) -> List[Dict[str, Any]]:
    """A row for every method of a comparison with random weights."""
    found = []
    for method, results in by_method(report['results']).items():
        pretraining, finetuning = (
            statistics.mean(result[key]['cpu_seconds'] /
                            60 if key in result else 0 for result in results)
            for key in ('pretraining', 'fine_tuning_run'))
        found.append(
            dict(
                labels=report['settings']['labels_per_class'] or 0,
                method=method,
                seeds=len(results),
                pretraining=pretraining,
                total=pretraining + finetuning,
                **{
                    key: [result[key] for result in results if key in result]
                    for key in SHOWN
                }))
    return found


def table(reports: Sequence[dict]) -> str:
    """Accuracies by labels a class, then by total compute."""
    found = [row for report in reports for row in rows(report)]
    found.sort(key=lambda row: (row['labels'], row['total']))
    header = ('labels a class', 'weights', 'seeds',
              'CPU minutes: pre-training', 'with fine-tuning',
              *(MEASURES[key] for key in SHOWN))
    return markdown(header, [[
        str(row['labels'] or 'all'), row['method'],
        str(row['seeds']), f'{row["pretraining"]:.1f}', f'{row["total"]:.1f}',
        *(mean_and_spread(row[key]) or 'not measured' for key in SHOWN)
    ] for row in found])


def draw(reports: Sequence[dict], file: Path) -> None:
    """A panel for every number of labels, a curve for every method."""
    found = [row for report in reports for row in rows(report)]
    numbers = sorted({row['labels'] for row in found})
    families = dict.fromkeys(_family(row) for row in found)
    figure = Figure(figsize=(4.5 * len(numbers), 4), layout='constrained')
    axes = figure.subplots(1, len(numbers), squeeze=False)[0]
    for ax, labels in zip(axes, numbers):
        for family, color in zip(families, COLORS[1:]):
            of_family = [
                row for row in found
                if row['labels'] == labels and _family(row) == family
            ]
            for key, cost in (('fine_tuning', 'total'), ('linear',
                                                         'pretraining')):
                _curve(ax, of_family, key, cost, color, family)
        ax.set_xscale('log')
        ax.set_xlabel('CPU minutes, pre-training and fine-tuning')
        ax.set_title(
            f'{labels} labels a class' if labels else 'all labels',
            fontsize='medium')
        ax.grid(axis='x', alpha=.3, which='both')
    axes[0].set_ylabel('top-1 accuracy, %')
    axes[-1].legend(fontsize='small')
    save_figure(figure, file)


def _family(row: Dict[str, Any]) -> str:
    """One name for random weights, however long they are trained."""
    return row['method'].partition(',')[0]


def _curve(ax: Axes, found: List[Dict[str, Any]], key: str, cost: str,
           color: str, family: str) -> None:
    """Means and spreads; the probe of random weights, which costs nothing."""
    curve = sorted((row[cost], row[key]) for row in found if row[key])
    label = f'{family}, {MEASURES[key]}'
    if curve and not curve[0][0]:
        mean = statistics.mean(curve[0][1])
        ax.axhline(mean, color=color, linestyle=':', label=label)
    elif curve:
        spread = [
            statistics.stdev(values) if len(values) > 1 else 0
            for _, values in curve
        ]
        ax.errorbar([x for x, _ in curve],
                    [statistics.mean(values) for _, values in curve],
                    spread,
                    color=color,
                    fmt='o-' if key == 'fine_tuning' else 's--',
                    fillstyle='full' if key == 'fine_tuning' else 'none',
                    capsize=5,
                    label=label)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', type=Path, nargs='+', metavar='JSON')
    parser.add_argument('--table', type=Path, help='the Markdown file')
    parser.add_argument('--plot', type=Path, help='the picture to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    reports = [json.loads(file.read_text('utf-8')) for file in args.files]
    content = table(reports)
    print(content)
    if args.table:
        write_marked(args.table, content, 'over-compute')
    if args.plot:
        draw(reports, args.plot)
