# Copyright (c) greenmim authors. All rights reserved.
"""The loss. The letters of shapes are defined in :mod:`greenmim.ops`."""
import json
from typing import Optional, Union

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor

from greenmim.ops import VisibleLayout, unit_grid
from greenmim.registry import MODELS
from ..target_generators import Target, check_predictions


@MODELS.register_module()
class GreenMIMHead(BaseModule):
    """Loss of masked image modelling: predictions against a target.

    The loss is averaged over a unit's values, then over the masked units
    alone (over all units if none is masked), and computed in fp32 at least,
    under autocast too. Padding does not count. GreenMIM's target is the
    pixels.

    Args:
        loss (dict): Config of the loss, ``criterion='L1'`` or ``'L2'``.
            Defaults to
            ``dict(type='PixelReconstructionLoss', criterion='L2')``.
        norm_pix (bool): Normalise pixels unit by unit. Defaults to True.
        unit_size (int): Side of a mask unit in pixels, the backbone's final
            stride. Defaults to 32.
        target (dict, optional): Config of another target than pixels, built
            with ``unit_size``, see :class:`greenmim.models.Target`; it
            replaces ``norm_pix``. Defaults to None.
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
        target = dict(target, unit_size=unit_size)
        self.target_key = json.dumps(target, sort_keys=True, default=str)
        self.target: Target = MODELS.build(target)
        self.loss_module = MMPRETRAIN_MODELS.build(loss)

    def construct_target(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into targets (B, L, D), fp32 at least."""
        return self.target(_at_least_fp32(images))

    def loss(self,
             pred: Tensor,
             images: Tensor,
             mask: Union[Tensor, VisibleLayout],
             target: Optional[Tensor] = None) -> Tensor:
        """Compare predictions with the target in masked units.

        Args:
            pred (Tensor): Shape (B, L, D), all units.
            images (Tensor): Shape (B, C, H, W), as the backbone saw them.
            mask (Tensor | VisibleLayout): Bool of shape (B, Gh, Gw), or
                (1, Gh, Gw) for one mask shared by the batch, True = masked;
                or the layout made from it.
            target (Tensor, optional): Shape (B, L, D), what
                :meth:`construct_target` returned for these images before.
                Defaults to None, it is computed.

        Raises:
            ValueError: If prediction, images and mask do not fit, or images
                are padded and the target of a unit depends on others.
        """
        grid = unit_grid(images.shape[2:], self.unit_size)
        layout = VisibleLayout.from_mask(mask, grid)
        layout.check_batch(images.shape[0])
        if layout.valid is not None and self.target.reads_whole_image:
            raise ValueError(
                f'expected images of one size, since '
                f'{type(self.target).__name__} reads their padding; use '
                'another target for a padded batch')
        if target is None:
            target = self.construct_target(images)
        target_BLD = _at_least_fp32(target)
        check_predictions(pred, target_BLD.shape)

        # If nothing is masked, all units but padding are visible.
        masked = layout.masked
        counted = (masked if masked.any() else layout.visible).flatten(1)
        weight_BL = counted.to(
            target_BLD.device, target_BLD.dtype,
            non_blocking=True).expand(target_BLD.shape[:2])
        return self.loss_module(_at_least_fp32(pred), target_BLD, weight_BL)

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Draw predictions as images, in fp32 at least.

        See :meth:`greenmim.models.Target.to_images`.
        """
        return self.target.to_images(
            _at_least_fp32(pred), _at_least_fp32(images))

    def draw_target(self, images: Tensor) -> Tensor:
        """Draw the target as :meth:`to_images` draws predictions."""
        return self.to_images(self.construct_target(images), images)


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
