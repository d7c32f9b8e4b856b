# Copyright (c) greenmim authors. All rights reserved.
from typing import Tuple, Union

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor

from greenmim.ops import VisibleLayout, patchify, unit_grid, unpatchify
from greenmim.registry import MODELS


@MODELS.register_module()
class GreenMIMHead(BaseModule):
    """Target and loss of GreenMIM: the pixels of the masked units.

    A unit's target is the vector of its pixels, ordered row, column, channel.
    With ``norm_pix`` every vector is normalised by its own mean :math:`m` and
    unbiased variance :math:`v`, to :math:`(p - m) / \\sqrt{v + 10^{-6}}`. The
    loss is averaged over a unit's values, then over the masked units alone
    (over all units where none is masked), and computed in fp32 at least,
    under autocast too.

    Args:
        loss (dict): Config of the loss, ``criterion='L1'`` or ``'L2'``.
            Defaults to
            ``dict(type='PixelReconstructionLoss', criterion='L2')``.
        norm_pix (bool): Normalise the target unit by unit. Defaults to True.
        unit_size (int): Side of a mask unit in pixels, the backbone's final
            stride. Defaults to 32.
    """

    eps = 1e-6

    def __init__(self,
                 loss: dict = dict(
                     type='PixelReconstructionLoss', criterion='L2'),
                 norm_pix: bool = True,
                 unit_size: int = 32) -> None:
        super().__init__()
        self.norm_pix = norm_pix
        self.unit_size = unit_size
        self.loss_module = MMPRETRAIN_MODELS.build(loss)

    def construct_target(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into the targets of their units.

        Returns:
            Tensor: Shape (B, L, unit_size**2 * C), in fp32 at least.
        """
        target = patchify(_at_least_fp32(images), self.unit_size)
        if self.norm_pix:
            mean, std = self._statistics(target)
            target = (target - mean) / std
        return target

    def loss(self, pred: Tensor, images: Tensor,
             mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """Compare predictions with the images where they are masked.

        Args:
            pred (Tensor): Shape (B, L, unit_size**2 * C), all units.
            images (Tensor): Shape (B, C, H, W), as the backbone saw them.
            mask (Tensor | VisibleLayout): Bool of shape (B, Gh, Gw), or
                (1, Gh, Gw) for one mask shared by the batch, True = masked;
                or the layout made from it.

        Returns:
            Tensor: The loss, a scalar.

        Raises:
            ValueError: If prediction, images and mask do not fit.
        """
        grid = unit_grid(images.shape[2:], self.unit_size)
        layout = VisibleLayout.from_mask(mask, grid)
        layout.check_batch(images.shape[0])
        target = self.construct_target(images)
        self._check(pred, target)

        masked = ~layout.visible.flatten(1)
        if layout.num_visible == masked.shape[1]:
            masked = torch.ones_like(masked)
        masked = masked.to(target.device, target.dtype, non_blocking=True)
        return self.loss_module(
            _at_least_fp32(pred), target, masked.expand(target.shape[:2]))

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Turn predictions into images, in the values of ``images``.

        The normalisation of ``norm_pix`` is undone by mean and variance of
        the true pixels, which the model has not predicted.

        Args:
            pred (Tensor): Shape (B, L, unit_size**2 * C), all units.
            images (Tensor): Shape (B, C, H, W), as the backbone saw them.

        Returns:
            Tensor: Shape (B, C, H, W), in fp32 at least.

        Raises:
            ValueError: If prediction and images do not fit.
        """
        target = patchify(_at_least_fp32(images), self.unit_size)
        self._check(pred, target)
        pred = _at_least_fp32(pred)
        if self.norm_pix:
            mean, std = self._statistics(target)
            pred = pred * std + mean
        grid = unit_grid(images.shape[2:], self.unit_size)
        return unpatchify(pred, self.unit_size, grid)

    def _statistics(self, patches: Tensor) -> Tuple[Tensor, Tensor]:
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (var + self.eps).sqrt()

    def _check(self, pred: Tensor, target: Tensor) -> None:
        if pred.shape != target.shape:
            raise ValueError(
                f'expected predictions of shape {tuple(target.shape)}, (B, L, '
                f'{self.unit_size}**2 * image channels), got '
                f'{tuple(pred.shape)}; set the out_channels of the neck to '
                f'{target.shape[-1]}')


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
