# Copyright (c) greenmim authors. All rights reserved.
"""Masked units filled from visible units nearby."""
from typing import Dict, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from greenmim.ops import VisibleLayout, patchify, unit_grid, unpatchify
from greenmim.ops.mask_unit import Grid

WIDTHS = (0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.)
"""Widths of an interpolation to choose from, in mask units."""


def fill_from_neighbours(images_BCHW: Tensor, layout: VisibleLayout,
                         unit_size: int) -> Tensor:
    r"""Give masked units the mean and deviation of visible ones nearby.

    The mean of a masked unit is the average of the means of the image's
    visible units, weighted by :math:`d^{-4}` for the distance :math:`d` of the
    units; so is its standard deviation. Its texture is copied from the visible
    unit with the largest deviation. The pixels of masked units are never read.

    Args:
        images_BCHW (Tensor): Images with sides that are multiples of
            ``unit_size``, in fp32 at least.
        layout (VisibleLayout): Their visible units.
        unit_size (int): Side of a mask unit in pixels.

    Returns:
        Tensor: Shape (B, C, H, W), visible units as they were.
    """
    grid = unit_grid(images_BCHW.shape[2:], unit_size)
    layout.check_batch(len(images_BCHW))
    visible = layout.visible.flatten(1).to(images_BCHW.device)  # (M, L)
    patches = patchify(images_BCHW, unit_size)
    patches = patches.masked_fill(~visible[:, :, None], 0.)
    std, mean = torch.std_mean(patches, dim=-1, keepdim=True)  # (B, L, 1)

    weights = _inverse_distances(grid).to(patches) * visible[:, None]
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    source = std[..., 0].argmax(1)
    texture = patches[torch.arange(len(patches)), source]
    deviation, middle = torch.std_mean(texture, dim=-1, keepdim=True)
    texture = (texture - middle) / deviation.clamp(min=1e-12)
    filled = texture[:, None] * (weights @ std) + weights @ mean
    patches = torch.where(visible[:, :, None], patches, filled)
    return unpatchify(patches, unit_size, grid)


def naive_fillings(images_BCHW: Tensor,
                   layout: VisibleLayout,
                   unit_size: int,
                   width: float = 0.5) -> Dict[str, Tensor]:
    """What a prediction of masked pixels has to be better than.

    The pixels of masked units are never read.

    Args:
        images_BCHW (Tensor): As for :func:`fill_from_neighbours`.
        layout (VisibleLayout): Their visible units.
        unit_size (int): Side of a mask unit in pixels.
        width (float): Standard deviation of the interpolation's weights, in
            units. Defaults to 0.5.

    Returns:
        dict[str, Tensor]: ``'mean'``, the mean of the visible pixels of each
        image and channel, and ``'smooth'``, at every pixel the mean of the
        visible ones with Gaussian weights of their distances; (B, C, H, W)
        each.
    """
    shown = layout.visible[:, None].repeat_interleave(unit_size, 2)
    shown = shown.repeat_interleave(unit_size, 3)
    # In double precision weights of pixels far away are not zero.
    images = images_BCHW.double().cpu().where(shown, 0.)
    count = shown.sum((2, 3), keepdim=True).clamp(min=1)
    mean = images.sum((2, 3), keepdim=True) / count

    rows, cols = (
        _gaussian(side, width * unit_size) for side in images.shape[2:])
    weights = rows @ shown.double() @ cols
    smooth = (rows @ images @ cols / weights).where(weights > 0, mean)
    fillings = dict(mean=mean.expand_as(images), smooth=smooth)
    return {name: filled.to(images_BCHW) for name, filled in fillings.items()}


def best_width(batches: Sequence[Tuple[Tensor, VisibleLayout]],
               unit_size: int) -> float:
    """The width with which the smooth interpolation errs least.

    Args:
        batches (Sequence[tuple[Tensor, VisibleLayout]]): Images (B, C, H, W)
            to choose by, of which all pixels are read, and their visible
            units.
        unit_size (int): Side of a mask unit in pixels.

    Returns:
        float: One of :data:`WIDTHS`, in units.
    """

    def error(width: float) -> float:
        total = 0.
        for images, layout in batches:
            smooth = naive_fillings(images, layout, unit_size, width)['smooth']
            squares = F.avg_pool2d((smooth - images).square(), unit_size)
            total += float(
                (squares * layout.masked.to(squares.device)[:, None]).sum())
        return total

    return min(WIDTHS, key=error)


def _gaussian(side: int, deviation: float) -> Tensor:
    """Weights of every pair of places along an axis, (side, side)."""
    place = torch.arange(side, dtype=torch.float64)
    return torch.exp(-((place[:, None] - place) / deviation).square() / 2)


def _inverse_distances(grid: Grid) -> Tensor:
    """d**-4 for every pair of units, (L, L); 0 of a unit to itself."""
    rows, cols = (torch.arange(side, dtype=torch.float32) for side in grid)
    places = torch.cartesian_prod(rows, cols).view(-1, 2)
    squared = (places[:, None] - places).square().sum(-1)
    return torch.where(squared > 0, squared.clamp(min=1)**-2, 0.)
