# Copyright (c) greenmim authors. All rights reserved.
from typing import Optional

import torch
from torch import Tensor

from greenmim.ops.mask_unit import Grid
from greenmim.registry import TASK_UTILS
from .random_mask import num_visible_units


@TASK_UTILS.register_module()
class UniformMask:
    """Leaves at most one unit visible in each cell of 2x2 units.

    Uniform sampling of `UM-MAE <https://arxiv.org/abs/2205.10063>`_: at a
    ratio of 0.75 and on a grid with even sides, one unit of every cell is
    visible. At higher ratios whole cells are hidden. On a grid with an odd
    side the cells of one border, drawn at random, are cut off. Of these, cells
    whose drawn unit lies on the grid are preferred, so that units at the
    border are visible about as often as others.
    """

    def __call__(self,
                 num_masks: int,
                 grid: Grid,
                 mask_ratio: float,
                 generator: Optional[torch.Generator] = None) -> Tensor:
        """See :func:`greenmim.models.masking.random_mask`.

        Raises:
            ValueError: If the ratio leaves more units than there are cells.
        """
        kept = num_visible_units(grid[0] * grid[1], mask_ratio)
        rows, cols = (grid[0] + 1) // 2, (grid[1] + 1) // 2
        if kept > rows * cols:
            lowest = 1 - rows * cols / (grid[0] * grid[1])
            raise ValueError(
                'expected a mask_ratio that leaves at most one unit of each '
                f'2x2 cell visible, at least {lowest:.3f} for the unit grid '
                f'{tuple(grid)}, got {mask_ratio}; use 0.75')

        whole = (2 * rows, 2 * cols)
        inside = torch.zeros(whole)
        inside[:grid[0], :grid[1]] = 1
        score = torch.rand(num_masks, *whole, generator=generator)
        in_cells, score = _cells(inside[None]), _cells(score)
        drawn = score.argmax(2, keepdim=True)
        fits = in_cells.expand_as(score).gather(2, drawn)[..., 0]
        order = fits + torch.rand(fits.shape, generator=generator)
        cells = order.topk(kept, dim=1).indices[:, :, None]
        # Units on the grid win, since scores are below 1.
        unit = (score + in_cells).argmax(2, keepdim=True).gather(1, cells)

        mask = torch.ones(num_masks, rows, cols, 2, 2, dtype=torch.bool)
        mask.view(num_masks, -1)[torch.arange(num_masks)[:, None],
                                 (4 * cells + unit)[..., 0]] = False
        mask = mask.transpose(2, 3).reshape(num_masks, *whole)
        mask = mask[:, :grid[0], :grid[1]]
        flips = torch.rand(num_masks, 2, generator=generator) < 0.5
        for i, (down, across) in enumerate(flips.tolist()):
            axes = [axis for axis, flip in enumerate((down, across)) if flip]
            mask[i] = mask[i].flip(axes)
        return mask


def _cells(x: Tensor) -> Tensor:
    """Units (M, 2 * rows, 2 * cols) as cells, (M, rows * cols, 4)."""
    num, height, width = x.shape
    x = x.view(num, height // 2, 2, width // 2, 2).transpose(2, 3)
    return x.reshape(num, -1, 4)
