# Copyright (c) greenmim authors. All rights reserved.
"""Draw benchmarks/*.json and write their tables into the documents.

The pictures go to docs/images, the tables between the lines

    <!-- benchmark:begin -->
    <!-- benchmark:end -->

of README.md and docs/benchmarks.md, so that no number is typed by hand. What a
file is used for is the first word of its name, see benchmarks/README.md.
"""
import argparse
from pathlib import Path
from typing import Any, Callable, Dict, List

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from .pages import (MARK, Results, docs_block, image_name, load, model_name,
                    readme_block, row_of, token_microseconds, with_breakdown)
from .results import write_marked

GREEN, DENSE = '#2a9d5c', '#7a7a7a'
COLORS = {
    'matrix products': '#2a6f97',
    'attention': '#e9a23b',
    'gathers': '#c8553d',
    'norms': '#8f6bb3',
    'activations': '#c9a0dc',
    'decoder': '#2a9d5c',
    'loss': '#9bd1ac',
    'planning': '#1b1b1b',
    'optimiser': '#d4b483',
    'other': '#c4c4c4',
}
STYLE: Any = {
    'axes.spines.top': False,
    'axes.spines.right': False,
    'figure.facecolor': 'white',
    'figure.constrained_layout.use': True,
    'legend.frameon': False,
    'svg.hashsalt': 'greenmim',
}


def grouped(results: Results, name: Callable[[dict],
                                             str]) -> Dict[str, Results]:
    groups: Dict[str, Results] = {}
    for result in results:
        groups.setdefault(name(result), []).append(result)
    return groups


def panel_name(result: dict) -> str:
    return f'{result["environment"]["hardware"]}, {result["dtype"]}'


def draw_speedup(results: Results, ax: Axes) -> None:
    for name, curve in grouped(results, model_name).items():
        curve = sorted(curve, key=lambda result: result['mask_ratio'])
        ratios = [result['mask_ratio'] for result in curve]
        faster = [row_of(result, 'greenmim')['ratio'] for result in curve]
        line, = ax.plot(ratios, faster, 'o-', label=f'GreenMIM, {name}')
        limits = [result['limit'] for result in curve]
        style: Any = dict(color=line.get_color(), alpha=.6)
        ax.plot(ratios, limits, '--', label='limit by token count', **style)
    ax.axhline(1, color=DENSE, linewidth=1, label='SimMIM')
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel('masked units')
    ax.set_ylabel('times faster than SimMIM')
    ax.legend(loc='upper left')


def draw_size(results: Results, ax: Axes) -> None:
    for name, curve in grouped(results, model_name).items():
        curve = sorted(curve, key=lambda result: result['image_size'])
        sizes = [result['image_size'][0] for result in curve]
        cost = [token_microseconds(result) for result in curve]
        line, = ax.plot(sizes, cost, 'o-', label=f'GreenMIM, {name}')
        style: Any = dict(color=line.get_color(), alpha=.12, linewidth=0)
        label = f'{sizes[0]} px, 10 % more or less'
        ax.axhspan(cost[0] * .9, cost[0] * 1.1, label=label, **style)
        ax.set_xticks(sizes)
    ax.set_ylim(bottom=0)
    ax.set_xlabel('image side, px')
    ax.set_ylabel('µs per visible token')
    ax.legend(loc='lower left')


def draw_breakdown(results: Results, ax: Axes) -> None:
    names: List[str] = []
    for result in results:
        for row in result['rows']:
            if 'breakdown' not in row:
                continue
            total = row['seconds'] + row.get('optimizer_seconds', 0)
            left = 0
            for kind, color in COLORS.items():
                width = row['breakdown'][kind] * total
                label = None if names else kind
                ax.barh(len(names), width, .7, left, color=color, label=label)
                left += width
            names.append(
                f'{row["name"]}\n{model_name(result)}, {image_name(result)}')
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel('seconds of a step')
    ax.legend(loc='center left', bbox_to_anchor=(1, .5))


def draw_memory(results: Results, ax: Axes) -> None:
    points: Dict[str, List[tuple]] = {}
    for result in results:
        for row in result['rows']:
            point = (row['seconds'], row['peak_memory'] / 2**20)
            name = f'{row["name"]}, {model_name(result)}'
            points.setdefault(name, []).append(point)
            if result['with_cp']:
                ax.annotate(
                    'with_cp', point, (6, 6), textcoords='offset points')
    for name, line in points.items():
        color = GREEN if name.startswith('greenmim') else DENSE
        ax.plot(*zip(*line), 'o-', color=color, label=name)
    ax.margins(x=.15)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.set_xlabel('seconds of a step')
    ax.set_ylabel('peak memory, MiB')
    ax.legend(loc='lower right')


def draw_all(results: Dict[str, Results], folder: Path) -> None:
    """Draw what there is, a panel for every machine and precision."""
    pictures = {
        'speedup': (draw_speedup, results.get('ratio', [])),
        'image_size': (draw_size, results.get('size', [])),
        'breakdown': (draw_breakdown, with_breakdown(results.get('step', []))),
        'memory': (draw_memory, results.get('memory', [])),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (draw, chosen) in pictures.items():
        if not chosen:
            continue
        panels = grouped(chosen, panel_name)
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(
                len(panels), figsize=(8, 4.5 * len(panels)), squeeze=False)
            for (title, panel), ax in zip(panels.items(), axes[:, 0]):
                ax.set_title(title, loc='left', fontsize='medium')
                draw(panel, ax)
            figure.savefig(folder / f'{name}.svg', metadata=dict(Date=None))
            plt.close(figure)
        print(f'drawn: {folder / name}.svg')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--root',
        type=Path,
        default=Path(__file__).parents[2],
        help='folder that holds benchmarks, docs and README.md (default: '
        'this checkout)')
    return parser.parse_args()


def main() -> None:
    root = parse_args().root
    results = load(root / 'benchmarks')
    draw_all(results, root / 'docs' / 'images')
    write_marked(root / 'README.md', readme_block(results), MARK)
    write_marked(root / 'docs' / 'benchmarks.md', docs_block(results), MARK)
