# Copyright (c) greenmim authors. All rights reserved.
"""Masked units filled from visible units nearby."""
from typing import Dict

import torch
import torch.nn.functional as F
from torch import Tensor

from greenmim.ops import VisibleLayout, patchify, unit_grid, unpatchify
from greenmim.ops.mask_unit import Grid


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


def naive_fillings(images_BCHW: Tensor, layout: VisibleLayout,
                   unit_size: int) -> Dict[str, Tensor]:
    """What a prediction of masked pixels has to be better than.

    The pixels of masked units are never read.

    Args:
        images_BCHW (Tensor): As for :func:`fill_from_neighbours`.
        layout (VisibleLayout): Their visible units.
        unit_size (int): Side of a mask unit in pixels.

    Returns:
        dict[str, Tensor]: ``'mean'``, the mean of the visible pixels of each
        image and channel, and ``'smooth'``, a bilinear interpolation of the
        means of visible units, masked ones filled by their inverse distances;
        (B, C, H, W) each.
    """
    grid = unit_grid(images_BCHW.shape[2:], unit_size)
    visible = layout.visible.flatten(1).to(images_BCHW.device)  # (M, L)
    shown = visible.view(-1, 1, *grid)
    means = F.avg_pool2d(images_BCHW, unit_size).where(shown, 0.)
    count = shown.sum((2, 3), keepdim=True).clamp(min=1)
    mean = means.sum((2, 3), keepdim=True) / count

    weights = _inverse_distances(grid).to(means) * visible[:, None]
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    filled = means.flatten(2) @ weights.transpose(1, 2)
    smooth = F.interpolate(
        means.where(shown, filled.view_as(means)),
        scale_factor=unit_size,
        mode='bilinear')
    return dict(mean=mean.expand_as(images_BCHW), smooth=smooth)


def _inverse_distances(grid: Grid) -> Tensor:
    """d**-4 for every pair of units, (L, L); 0 of a unit to itself."""
    rows, cols = (torch.arange(side, dtype=torch.float32) for side in grid)
    places = torch.cartesian_prod(rows, cols).view(-1, 2)
    squared = (places[:, None] - places).square().sum(-1)
    return torch.where(squared > 0, squared.clamp(min=1)**-2, 0.)
