# Copyright (c) greenmim authors. All rights reserved.
"""The interface of targets.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import Any, Sequence

from torch import Tensor, nn


class Target(nn.Module):
    """What is to be predicted, computed from the images.

    A class attribute may be overridden by a subclass or an instance.
    """

    reads_whole_image = False
    """Whether a unit's values depend on pixels of other units far away."""

    draws_images = True
    """Whether :meth:`to_images` returns the values of images."""

    uses_target_statistics = False
    """Whether :meth:`to_images` reads statistics of the true pixels."""

    def attach(self, algorithm: Any) -> None:
        """Take what the target needs from the algorithm that owns it.

        Called once, when the algorithm is built.

        Args:
            algorithm (MaskedImageModeling): A
                :class:`greenmim.models.selfsup.MaskedImageModeling`.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into the values of all units, (B, L, D)."""
        raise NotImplementedError

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Draw predictions as images.

        Args:
            pred (Tensor): Shape (B, L, D), all units.
            images (Tensor): Shape (B, C, H, W), as the backbone saw them.

        Returns:
            Tensor: Shape (B, C, H, W).

        Raises:
            ValueError: If the target cannot be drawn, or prediction and
                images do not fit.
        """
        raise ValueError('expected a target that can be drawn, got a '
                         f'{type(self).__name__}; add pixels by '
                         'greenmim.SumOfHeads to see reconstructions')


def check_predictions(pred: Tensor, shape: Sequence[int]) -> None:
    """Refuse predictions of another shape than the target's.

    Args:
        pred (Tensor): The predictions.
        shape (Sequence[int]): The shape of the target.

    Raises:
        ValueError: If the shapes differ.
    """
    if pred.shape != tuple(shape):
        raise ValueError(
            f"expected predictions of shape {tuple(shape)}, a unit's values "
            f'of the target last, got {tuple(pred.shape)}; set the '
            f'out_channels of the neck to {shape[-1]}')
