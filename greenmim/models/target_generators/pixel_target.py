# Copyright (c) greenmim authors. All rights reserved.
"""Pixels as target.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import Tuple

import torch
from torch import Tensor

from greenmim.ops import patchify, unit_grid, unpatchify
from greenmim.registry import MODELS
from .base import Target, check_predictions


@MODELS.register_module()
class PixelTarget(Target):
    """The pixels of a unit, ordered row, column, channel.

    Normalised, every unit's vector :math:`p` is turned into
    :math:`(p - m) / \\sqrt{v + 10^{-6}}` by its own mean :math:`m` and
    unbiased variance :math:`v` (MAE, section 3; GreenMIM).

    Args:
        unit_size (int): Side of a mask unit in pixels. Defaults to 32.
        norm (bool): Normalise unit by unit. Defaults to True.
    """

    eps = 1e-6

    def __init__(self, unit_size: int = 32, norm: bool = True) -> None:
        super().__init__()
        self.unit_size = unit_size
        self.norm = norm
        self.uses_target_statistics = norm

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into (B, L, unit_size**2 * C)."""
        patches_BLD = patchify(images, self.unit_size)
        if self.norm:
            mean, std = self._statistics(patches_BLD)
            patches_BLD = (patches_BLD - mean) / std
        return patches_BLD

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Turn predictions into images, in the values of ``images``.

        The normalisation is undone by mean and variance of the true pixels,
        which the model has not predicted. See :meth:`Target.to_images`.
        """
        patches_BLD = patchify(images, self.unit_size)
        check_predictions(pred, patches_BLD.shape)
        if self.norm:
            mean, std = self._statistics(patches_BLD)
            pred = pred * std + mean
        grid = unit_grid(images.shape[2:], self.unit_size)
        return unpatchify(pred, self.unit_size, grid)

    def _statistics(self, patches_BLD: Tensor) -> Tuple[Tensor, Tensor]:
        """Mean and deviation of every unit, (B, L, 1)."""
        var, mean = torch.var_mean(patches_BLD, dim=-1, keepdim=True)
        return mean, (var + self.eps).sqrt()
