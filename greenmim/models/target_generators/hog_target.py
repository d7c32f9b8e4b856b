# Copyright (c) greenmim authors. All rights reserved.
"""Oriented gradients as target.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
import math
from typing import Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from greenmim.ops import unit_grid
from greenmim.registry import MODELS
from .base import Target, check_predictions


@MODELS.register_module()
class HOGTarget(Target):
    r"""Histograms of oriented gradients, channel by channel.

    Sobel's gradients :math:`g_x, g_y` (left minus right, above minus below,
    the image mirrored at its border) have a magnitude, which is voted into
    the bin :math:`\lfloor 9 \operatorname{atan2}(g_x, g_y) / \pi \rfloor
    \bmod 9` of the pixel's cell, without interpolation (`FastMIM
    <https://arxiv.org/abs/2212.06593>`_, section 3.2). A unit's values are
    ordered channel, bin, row and column of the cell.

    Args:
        unit_size (int): Side of a mask unit in pixels, a multiple of
            ``cell_size``. Defaults to 32.
        norm (bool): Divide the bins of a cell and channel by their L2 norm.
            Defaults to True.
        num_bins (int): Orientations, of 180 degrees together. Defaults to 9.
        cell_size (int): Side of a cell in pixels. Defaults to 8.

    Raises:
        ValueError: If ``unit_size`` is no such multiple.
    """

    draws_images = False

    def __init__(self,
                 unit_size: int = 32,
                 norm: bool = True,
                 num_bins: int = 9,
                 cell_size: int = 8) -> None:
        super().__init__()
        if unit_size % cell_size:
            raise ValueError('expected a unit_size that is a multiple of '
                             f'cell_size={cell_size}, got {unit_size}')
        self.unit_size = unit_size
        self.norm = norm
        self.num_bins = num_bins
        self.cell_size = cell_size

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into (B, L, C * bins * cells a unit)."""
        grid = unit_grid(images.shape[2:], self.unit_size)
        x, y = _gradients(images)
        bins = torch.floor(torch.atan2(x, y) / math.pi * self.num_bins)
        bins = self._cells(bins.long() % self.num_bins)
        magnitude = self._cells((x.square() + y.square()).sqrt())
        # (B, C, bins, rows, cols); a sum for each bin adds its terms in the
        # same order in every run, a scattered sum does not.
        histogram = torch.stack([(magnitude * (bins == k)).sum(-1)
                                 for k in range(self.num_bins)],
                                dim=2)
        if self.norm:
            histogram = F.normalize(histogram, dim=2)
        side = self.unit_size // self.cell_size
        B, C = images.shape[:2]
        histogram = histogram.view(B, C * self.num_bins, grid[0], side,
                                   grid[1], side)
        # (B, C * bins, Gh, y, Gw, x) -> (B, Gh, Gw, C * bins, y, x)
        histogram = histogram.permute(0, 2, 4, 1, 3, 5)
        return histogram.reshape(B, grid[0] * grid[1], -1)

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Draw every cell as bars along its edges.

        A bar is as bright as its bin's value. If all bins are 0, the drawing
        is 0, the mean colour of preprocessed images. See
        :meth:`Target.to_images`.
        """
        B, C = images.shape[:2]
        rows, cols = unit_grid(images.shape[2:], self.unit_size)
        side = self.unit_size // self.cell_size
        check_predictions(pred,
                          (B, rows * cols, C * self.num_bins * side * side))
        x = pred.view(B, rows, cols, C, self.num_bins, side, side)
        # (B, C, y, x, ...): units, their cells, the pixels of a bar
        drawn = torch.einsum('brcknyx,nij->bkryicxj', x, self._bars(pred))
        return drawn.reshape(images.shape)

    def _cells(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, rows, cols, pixels of a cell)."""
        size = self.cell_size
        B, C, H, W = x.shape
        x = x.view(B, C, H // size, size, W // size, size)
        return x.transpose(3, 4).flatten(4)

    def _bars(self, like: Tensor) -> Tensor:
        """The bar of each bin, (bins, cell_size, cell_size)."""
        bins = torch.arange(self.num_bins).to(like) + 0.5
        angle = (bins * (math.pi / self.num_bins))[:, None, None]
        position = torch.arange(self.cell_size).to(like)
        position = position - (self.cell_size - 1) / 2
        # Distance from the line through the centre whose normal is the
        # gradient (sin, cos).
        distance = position * angle.sin() + position[:, None] * angle.cos()
        return (1 - distance.abs()).clamp(min=0)


def _gradients(images: Tensor) -> Tuple[Tensor, Tensor]:
    """Sobel's gradients along x and y, in the precision of the images."""
    p = F.pad(images, (1, 1, 1, 1), mode='reflect')
    rows = p[..., :-2, :] + 2 * p[..., 1:-1, :] + p[..., 2:, :]
    cols = p[..., :-2] + 2 * p[..., 1:-1] + p[..., 2:]
    x = rows[..., :-2] - rows[..., 2:]
    y = cols[..., :-2, :] - cols[..., 2:, :]
    return x, y
