# Copyright (c) greenmim authors. All rights reserved.
"""Coarse pixels as target.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from torch import Tensor
from torch.nn import functional as F

from greenmim.registry import MODELS
from .base import Target
from .pixel_target import PixelTarget


@MODELS.register_module()
class LowFrequencyTarget(Target):
    """The pixels of a unit after averaging squares of pixels.

    Detail within ``factor x factor`` pixels is not predicted. The values are
    those of :class:`PixelTarget` on the smaller image, normalised there.

    Args:
        unit_size (int): Side of a mask unit in pixels, a multiple of
            ``factor``. Defaults to 32.
        factor (int): Side of an averaged square in pixels. Defaults to 4.
        norm (bool): Normalise unit by unit. Defaults to True.

    Raises:
        ValueError: If ``factor`` does not divide ``unit_size``, or leaves one
            value to normalise.
    """

    def __init__(self,
                 unit_size: int = 32,
                 factor: int = 4,
                 norm: bool = True) -> None:
        super().__init__()
        if factor < 1 or unit_size % factor or norm and factor == unit_size:
            raise ValueError(
                f'expected a factor that divides unit_size={unit_size}, and '
                f'is smaller where units are normalised, got {factor}')
        self.factor = factor
        self.pixels = PixelTarget(unit_size // factor, norm)
        self.uses_target_statistics = norm

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into (B, L, (unit / factor)**2 * C)."""
        return self.pixels(F.avg_pool2d(images, self.factor))

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Turn predictions into images of squares of one colour.

        See :meth:`PixelTarget.to_images`.
        """
        small_BCHW = self.pixels.to_images(pred,
                                           F.avg_pool2d(images, self.factor))
        return F.interpolate(
            small_BCHW, scale_factor=self.factor, mode='nearest')
