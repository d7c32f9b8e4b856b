# Copyright (c) greenmim authors. All rights reserved.
from typing import Optional, Union

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor

from greenmim.ops import VisibleLayout, unit_grid
from greenmim.registry import MODELS


@MODELS.register_module()
class GreenMIMHead(BaseModule):
    """Loss of masked image modelling: predictions against a target.

    The loss is averaged over a unit's values, then over the masked units
    alone (over all units where none is masked), and computed in fp32 at
    least, under autocast too. Padding is never part of it. The target of
    GreenMIM are the pixels.

    Args:
        loss (dict): Config of the loss, ``criterion='L1'`` or ``'L2'``.
            Defaults to
            ``dict(type='PixelReconstructionLoss', criterion='L2')``.
        norm_pix (bool): Normalise pixels unit by unit. Defaults to True.
        unit_size (int): Side of a mask unit in pixels, the backbone's final
            stride. Defaults to 32.
        target (dict, optional): Config of another target than pixels, built
            with ``unit_size``; it replaces ``norm_pix``. A target maps
            images to (B, L, D), and draws predictions by ``to_images``.
            Defaults to None.
    """

    def __init__(self,
                 loss: dict = dict(
                     type='PixelReconstructionLoss', criterion='L2'),
                 norm_pix: bool = True,
                 unit_size: int = 32,
                 target: Optional[dict] = None) -> None:
        super().__init__()
        self.unit_size = unit_size
        if target is None:
            target = dict(type='greenmim.PixelTarget', norm=norm_pix)
        self.target = MODELS.build(dict(target, unit_size=unit_size))
        self.loss_module = MMPRETRAIN_MODELS.build(loss)

    @property
    def uses_target_statistics(self) -> bool:
        """Whether drawn predictions contain statistics of the truth."""
        return self.target.uses_target_statistics

    @property
    def draws_images(self) -> bool:
        """Whether drawn predictions have the values of images."""
        return self.target.draws_images

    def construct_target(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into targets (B, L, D), fp32 at least."""
        return self.target(_at_least_fp32(images))

    def loss(self, pred: Tensor, images: Tensor,
             mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """Compare predictions with the target where it is masked.

        Args:
            pred (Tensor): Shape (B, L, D), all units.
            images (Tensor): Shape (B, C, H, W), as the backbone saw them.
            mask (Tensor | VisibleLayout): Bool of shape (B, Gh, Gw), or
                (1, Gh, Gw) for one mask shared by the batch, True = masked;
                or the layout made from it.

        Returns:
            Tensor: The loss, a scalar.

        Raises:
            ValueError: If prediction, images and mask do not fit, or images
                are padded and the target of a unit depends on others.
        """
        grid = unit_grid(images.shape[2:], self.unit_size)
        layout = VisibleLayout.from_mask(mask, grid)
        layout.check_batch(images.shape[0])
        if layout.valid is not None and getattr(self.target,
                                                'reads_whole_image', False):
            raise ValueError(
                f'expected images of one size, since '
                f'{type(self.target).__name__} reads their padding; use '
                'another target for a padded batch')
        target = self.construct_target(images)
        self._check(pred, target)

        valid = layout.valid
        if valid is None:
            valid = torch.ones_like(layout.visible)
        masked = valid & ~layout.visible
        masked = (masked if masked.any() else valid).flatten(1)
        masked = masked.to(target.device, target.dtype, non_blocking=True)
        return self.loss_module(
            _at_least_fp32(pred), target, masked.expand(target.shape[:2]))

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Draw predictions as images, see the target's ``to_images``.

        Args:
            pred (Tensor): Shape (B, L, D), all units.
            images (Tensor): Shape (B, C, H, W), as the backbone saw them.

        Returns:
            Tensor: Shape (B, C, H, W), in fp32 at least.

        Raises:
            ValueError: If prediction and images do not fit.
        """
        self._check(pred, self.construct_target(images))
        return self.target.to_images(
            _at_least_fp32(pred), _at_least_fp32(images))

    def draw_target(self, images: Tensor) -> Tensor:
        """Draw the target as :meth:`to_images` draws predictions."""
        return self.target.to_images(
            self.construct_target(images), _at_least_fp32(images))

    def _check(self, pred: Tensor, target: Tensor) -> None:
        if pred.shape != target.shape:
            raise ValueError(
                f'expected predictions of shape {tuple(target.shape)}, a '
                f"unit's values of the target last, got {tuple(pred.shape)}; "
                f'set the out_channels of the neck to {target.shape[-1]}')


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
