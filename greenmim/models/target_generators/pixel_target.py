# Copyright (c) greenmim authors. All rights reserved.
from typing import Tuple

import torch
from torch import Tensor, nn

from greenmim.ops import patchify, unit_grid, unpatchify
from greenmim.registry import MODELS


@MODELS.register_module()
class PixelTarget(nn.Module):
    """The pixels of a unit, ordered row, column, channel.

    Normalised, every unit's vector :math:`p` is turned into
    :math:`(p - m) / \\sqrt{v + 10^{-6}}` by its own mean :math:`m` and
    unbiased variance :math:`v` (MAE, section 3; GreenMIM).

    Args:
        unit_size (int): Side of a mask unit in pixels. Defaults to 32.
        norm (bool): Normalise unit by unit. Defaults to True.
    """

    eps = 1e-6
    draws_images = True

    def __init__(self, unit_size: int = 32, norm: bool = True) -> None:
        super().__init__()
        self.unit_size = unit_size
        self.norm = norm

    @property
    def uses_target_statistics(self) -> bool:
        """Whether :meth:`to_images` reads the true pixels."""
        return self.norm

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into (B, L, unit_size**2 * C)."""
        target = patchify(images, self.unit_size)
        if self.norm:
            mean, std = self._statistics(target)
            target = (target - mean) / std
        return target

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Turn predictions into images, in the values of ``images``.

        The normalisation is undone by mean and variance of the true pixels,
        which the model has not predicted.

        Args:
            pred (Tensor): Shape (B, L, unit_size**2 * C), all units.
            images (Tensor): Shape (B, C, H, W), as the backbone saw them.

        Returns:
            Tensor: Shape (B, C, H, W).
        """
        if self.norm:
            mean, std = self._statistics(patchify(images, self.unit_size))
            pred = pred * std + mean
        grid = unit_grid(images.shape[2:], self.unit_size)
        return unpatchify(pred, self.unit_size, grid)

    def _statistics(self, patches: Tensor) -> Tuple[Tensor, Tensor]:
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (var + self.eps).sqrt()
