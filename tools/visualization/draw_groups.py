# Copyright (c) greenmim authors. All rights reserved.
"""Draw how the windows of a mask are packed into groups, stage by stage.

Everything is read from the plan that a backbone would compute with: its
tokens, their windows and groups, and the padding that fills groups up.
"""
import argparse
import sys
from itertools import groupby
from pathlib import Path
from typing import List, Tuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image, ImageOps

from greenmim.command import run_tool
from greenmim.datasets.sample_photographs import load_photograph
from greenmim.models.masking import random_mask
from greenmim.ops import GroupPlan, MaskPlan, Window, unit_grid
from greenmim.registry import MODELS

HIDDEN = 228  # grey level of masked units
# Ten colours, then their light versions
COLORS = [
    plt.get_cmap('tab20')(i) for i in (*range(0, 20, 2), *range(1, 20, 2))
]
LEGEND = ('Black lines: windows. Colours: groups, below with their slots, '
          'window by window; white slots are padding.')
STYLE = {'svg.hashsalt': 'greenmim', 'font.size': 9}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw mask units, windows and groups of a mask')
    parser.add_argument('config', help='config of a pre-training')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('groups.png'),
        help='the picture to write, .png or .svg (default: %(default)s)')
    parser.add_argument(
        '--image',
        help='image file to mask (default: a photograph of scikit-image)')
    parser.add_argument(
        '--size',
        type=int,
        help='side of the image in pixels, a multiple of the mask unit '
        '(default: `img_size` of the backbone)')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the mask (default: %(default)s)')
    return parser.parse_args()


def token_places(plan: MaskPlan, side: int) -> np.ndarray:
    """Row and column of every visible token on its stage's map, (N, 2)."""
    cols = plan.layout.grid[1]
    unit = plan.layout.units[0].numpy()[:, None]
    token = np.arange(side * side)
    y = unit // cols * side + token // side
    x = unit % cols * side + token % side
    return np.stack([y.ravel(), x.ravel()], axis=1)


def window_edges(window: Window, length: int) -> List[int]:
    """Where windows begin and end along a side of a map."""
    first = window.shift or window.size
    return [0, *range(first, length, window.size), length]


def draw_image(ax: Axes, plan: MaskPlan, size: Tuple[int, int],
               image: np.ndarray, hidden: np.ndarray) -> None:
    """Draw one image where it is visible and another where it is masked."""
    height, width = size
    visible = plan.layout.visible[0].numpy()
    scale = image.shape[0] // visible.shape[0]
    shown = visible.repeat(scale, 0).repeat(scale, 1)[..., None]
    ax.imshow(
        np.where(shown, image, hidden),
        extent=(0, width, height, 0),
        interpolation='nearest')
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    ax.set_aspect('equal')
    ax.axis('on')


def draw_units(ax: Axes, plan: MaskPlan, image: np.ndarray) -> None:
    """Draw mask units, the masked ones faded."""
    rows, cols = plan.layout.grid
    draw_image(ax, plan, (rows, cols), image, 195 + image // 5)
    ax.hlines(range(rows), 0, cols, 'white', linewidth=.7)
    ax.vlines(range(cols), 0, rows, 'white', linewidth=.7)
    ax.set_title(f'{plan.layout.num_visible} of {rows * cols} mask units '
                 'visible')


def draw_map(ax: Axes, plan: MaskPlan, groups: GroupPlan, window: Window,
             side: int, image: np.ndarray) -> None:
    """Draw one kind of window of a stage."""
    rows, cols = plan.layout.grid
    height, width = rows * side, cols * side
    # In grey, so that only groups are coloured
    grey = image.mean(-1, keepdims=True).astype(np.uint8)
    draw_image(ax, plan, (height, width), grey.repeat(3, -1),
               np.uint8([HIDDEN]))
    places = token_places(plan, side)
    group = groups.slot_of_token.numpy() // groups.group_size
    tokens = [Rectangle((x, y), 1, 1) for y, x in places]
    ax.add_collection(
        PatchCollection(
            tokens,
            facecolor=[(*COLORS[g % len(COLORS)][:3], .55) for g in group],
            edgecolor='white',
            linewidth=.3))
    style = dict(color='black', linewidth=1)
    ax.hlines(window_edges(window, height), 0, width, **style)
    ax.vlines(window_edges(window, width), 0, height, **style)


def draw_slots(ax: Axes, groups: GroupPlan) -> None:
    """Draw the slots of every group: its windows' tokens, then padding."""
    number, size = groups.num_groups, groups.group_size
    for g, slots in enumerate(groups.window_of_slot.tolist()):
        style = dict(y=g + .5, height=.7, linewidth=.7)
        ax.barh(width=size, color='white', edgecolor='#999999', **style)
        start = 0
        for window, run in groupby(slots):
            length = len(list(run))
            if window >= 0:
                color = (*COLORS[g % len(COLORS)][:3], .6)
                ax.barh(
                    width=length,
                    left=start,
                    color=[color],
                    edgecolor='black',
                    **style)
            start += length
    # Groups are bars of the same height in every panel.
    ax.set(xlim=(-.01 * size, 1.01 * size), ylim=(max(number, 4), 0))
    ax.axis('off')


def draw(plan: MaskPlan, sides: List[int], image: np.ndarray) -> plt.Figure:
    """Draw all stages, their kinds of windows side by side."""
    rows, cols = plan.layout.grid
    panels = []
    for stage, (side, kinds) in enumerate(zip(sides, plan.groups), 1):
        # Windows that fit the map alike share a plan.
        for groups, window in {g: w for w, g in kinds.items()}.items():
            fitted = window.fit((rows * side, cols * side))
            panels.append((stage, fitted, groups, side))
    columns = min(4, len(panels) + 1)
    rows = -(-(len(panels) + 1) // columns)
    fig, axes = plt.subplots(
        2 * rows,
        columns,
        figsize=(2.6 * columns, 3.8 * rows),
        squeeze=False,
        gridspec_kw=dict(height_ratios=[2.6, .9] * rows),
        layout='constrained')
    for ax in axes.flat:
        ax.axis('off')
    draw_units(axes[0, 0], plan, image)
    for i, (stage, window, groups, side) in enumerate(panels, 1):
        row, column = divmod(i, columns)
        ax, below = axes[2 * row, column], axes[2 * row + 1, column]
        draw_map(ax, plan, groups, window, side, image)
        ax.set_title(f'Stage {stage}: windows of {window.size}, shift '
                     f'{window.shift}')
        draw_slots(below, groups)
        tokens = len(groups.slot_of_token)
        below.set_title(
            f'{tokens} tokens, {groups.num_groups} x {groups.group_size} '
            'slots')
    fig.supxlabel(LEGEND, fontsize='medium')
    return fig


def load_image(file: str, size: int) -> np.ndarray:
    """A square image, uint8 (size, size, 3)."""
    if file is None:
        image = Image.fromarray(load_photograph('astronaut'))
    else:
        image = Image.open(file).convert('RGB')
    return np.asarray(
        ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    try:
        model = MODELS.build(dict(cfg.model, data_preprocessor=None))
        stages = model.mask_planner.group_planner.stages
        if not any(stage.windows for stage in stages):
            raise ValueError('expected a backbone with window attention on '
                             f'visible units, got {args.config}')
        size = args.size or cfg.model.backbone.get('img_size', 224)
        mask = random_mask(1, unit_grid((size, size), model.unit_size),
                           model.mask_planner.mask_ratio,
                           torch.Generator().manual_seed(args.seed))
        plan = model.mask_planner(1, (size, size), mask)
        image = load_image(args.image, size)
    except (OSError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.use('Agg')
    with plt.rc_context(STYLE):
        fig = draw(plan, [stage.side for stage in stages], image)
        # No date, so that a picture is the same each time it is drawn.
        metadata = dict(Date=None) if args.out.suffix == '.svg' else {}
        fig.savefig(args.out, dpi=100, metadata=metadata)
        plt.close(fig)
    print(f'{args.out}: {plan.layout.num_visible} of '
          f'{plan.layout.visible.numel()} units are visible, '
          f'{100 * plan.fill_rate:.1f} % of the slots are used')


if __name__ == '__main__':
    run_tool(main)
