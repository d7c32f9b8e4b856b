# Copyright (c) greenmim authors. All rights reserved.
"""Draw what GreenMIM computes of one photograph, from pixels to the loss."""
import argparse
from pathlib import Path
from typing import List, Tuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from greenmim.command import run_tool
from greenmim.datasets.sample_photographs import load_photograph
from greenmim.models.masking import random_mask
from greenmim.ops import VisibleLayout

UNIT = 32  # pixels along a mask unit's side
GRID = (7, 7)  # units of an image of 224 x 224 pixels
PATCH = 4  # pixels along the side of a token of the first stage
GREEN, GREY = '#2e8b57', '#d9d9d9'
WHITE = dict(color='white', linewidth=.8, zorder=3)  # lines on images
WIDTH, HEIGHT = 11.5, 2.7  # inches, the units of all places below
SIDE = 1.7  # of an image
MIDDLE = 1.43  # height of the images' middle


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw units, stages, decoder and loss of GreenMIM')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('overview.png'),
        help='the picture to write (default: %(default)s)')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the mask (default: %(default)s)')
    return parser.parse_args()


def put_image(ax: Axes, left: float, pixels: np.ndarray) -> None:
    """Show a square image, its middle at the height ``MIDDLE``."""
    ax.imshow(
        pixels,
        extent=(left, left + SIDE, MIDDLE - SIDE / 2, MIDDLE + SIDE / 2),
        interpolation='antialiased',
        zorder=2)


def put_grid(ax: Axes, left: float, bottom: float, side: float, cells: int,
             **style: object) -> None:
    """Outline a square of ``cells`` x ``cells`` squares."""
    ends = np.linspace(0, side, cells + 1)
    ax.hlines(bottom + ends, left, left + side, **style)
    ax.vlines(left + ends, bottom, bottom + side, **style)


def put_arrow(ax: Axes, start: float) -> float:
    """Draw an arrow to the right; where the next part begins."""
    arrow = dict(arrowstyle='-|>', mutation_scale=12, color='#555555')
    ax.annotate('', (start + .3, MIDDLE), (start, MIDDLE), arrowprops=arrow)
    return start + .4


def put_text(ax: Axes, middle: float, title: str, below: str) -> None:
    """A title above and an explanation below."""
    ax.text(middle, 2.5, title, ha='center', va='center', weight='bold')
    ax.text(
        middle,
        .47,
        below,
        ha='center',
        va='top',
        fontsize=9.5,
        linespacing=1.3)


def draw_units(ax: Axes, left: float, photograph: np.ndarray,
               places: List[Tuple[int, int]]) -> float:
    """The pixels of the visible units, four in a row; their right end."""
    side, step = .36, .42
    rows = -(-len(places) // 4)
    for i, (row, col) in enumerate(places):
        x = left + i % 4 * step
        y = MIDDLE + (rows / 2 - 1 - i // 4) * step + (step - side) / 2
        ax.imshow(
            photograph[UNIT * row:UNIT * (row + 1),
                       UNIT * col:UNIT * (col + 1)],
            extent=(x, x + side, y, y + side),
            zorder=2)
        put_grid(ax, x, y, side, 1, color=GREEN, linewidth=1.5, zorder=3)
    return left + 3 * step + side


def draw_stages(ax: Axes, left: float, visible: int) -> float:
    """A unit's tokens in the four stages; their right end."""
    side, step = .5, .66
    units = GRID[0] * GRID[1]
    for stage in range(4):
        cells = UNIT // PATCH >> stage
        x, y = left + stage * step, MIDDLE - side / 2
        ax.add_patch(Rectangle((x, y), side, side, facecolor=GREEN, alpha=.25))
        put_grid(ax, x, y, side, cells, color=GREEN, linewidth=.7)
        style = dict(ha='center', va='center', fontsize=9.5)
        middle = x + side / 2
        ax.text(middle, y + side + .13, f'stage {stage + 1}', **style)
        for height, color, number in ((y - .14, GREEN, visible),
                                      (y - .34, 'grey', units)):
            ax.text(middle, height, number * cells**2, color=color, **style)
    return left + 3 * step + side


def draw_decoder(ax: Axes, left: float, layout: VisibleLayout) -> float:
    """Tokens of all units, as the decoder has them; their right end."""
    visible = layout.visible[0].numpy()[..., None]
    put_image(ax, left, np.where(visible, to_rgb(GREEN), to_rgb(GREY)))
    put_grid(ax, left, MIDDLE - SIDE / 2, SIDE, GRID[0], **WHITE)
    return left + SIDE


def draw(photograph: np.ndarray, layout: VisibleLayout) -> plt.Figure:
    """Draw the whole picture.

    Args:
        photograph (ndarray): Uint8 of shape (224, 224, 3).
        layout (VisibleLayout): The visible units of its 7 x 7.
    """
    fig = plt.figure(figsize=(WIDTH, HEIGHT))
    ax = fig.add_axes((0, 0, 1, 1))
    places = [divmod(unit, GRID[1]) for unit in layout.units[0].tolist()]
    total, visible = GRID[0] * GRID[1], len(places)
    shown = layout.visible[0].numpy().repeat(UNIT, 0).repeat(UNIT, 1)[...,
                                                                      None]

    put_image(ax, .15, np.where(shown, photograph, 195 + photograph // 5))
    put_grid(ax, .15, MIDDLE - SIDE / 2, SIDE, GRID[0], **WHITE)
    put_text(ax, .15 + SIDE / 2, 'image and mask',
             f'{total} mask units of\n{UNIT} x {UNIT} pixels')
    left = put_arrow(ax, .25 + SIDE)
    right = draw_units(ax, left, photograph, places)
    put_text(ax, (left + right) / 2, 'visible units',
             f'{visible} of {total} enter\nthe network')
    left = put_arrow(ax, right + .1)
    right = draw_stages(ax, left, visible)
    put_text(
        ax, (left + right) / 2, 'backbone',
        "a unit's tokens; green: tokens that are\n"
        'computed, grey: by a dense backbone')
    left = put_arrow(ax, right + .1)
    right = draw_decoder(ax, left, layout)
    put_text(ax, (left + right) / 2, 'decoder',
             'green: latent, grey: mask token;\none block predicts all units')
    left = put_arrow(ax, right + .1)
    put_image(ax, left, np.where(shown, 235, photograph).astype('uint8'))
    put_text(
        ax, left + SIDE / 2, 'target',
        f'squared error on the pixels\nof the {total - visible} masked '
        'units')
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.set_aspect('equal')
    ax.axis('off')
    return fig


def main() -> None:
    args = parse_args()
    side = UNIT * GRID[0]
    photograph = Image.fromarray(load_photograph('astronaut'))
    photograph = np.asarray(
        photograph.resize((side, side), Image.Resampling.BICUBIC))
    mask = random_mask(1, GRID, .75, torch.Generator().manual_seed(args.seed))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.use('Agg')
    with plt.rc_context({'font.size': 10}):
        fig = draw(photograph, VisibleLayout.from_mask(mask, GRID))
        fig.savefig(args.out, dpi=120)
        plt.close(fig)
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
