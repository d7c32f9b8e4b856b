# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Tuple

import torch
from torch import Tensor, nn

from greenmim.ops import MaskPlan, VisibleLayout, unit_grid, units_of_map
from greenmim.registry import MODELS
from ..visible import VisibleBackbone
from .masked_image_modeling import MaskedImageModeling, NeckInputs


@MODELS.register_module()
class MaskTokenMIM(MaskedImageModeling):
    """Masked image modelling that computes all tokens of any backbone.

    A learned token stands in the place of what is masked: among the patch
    embeddings, as in `SimMIM <https://arxiv.org/abs/2111.09886>`_, or among
    the pixels, as in `FastMIM <https://arxiv.org/abs/2212.06593>`_.

    Args:
        backbone (dict | nn.Module): A backbone that returns feature maps,
            the last of which is encoded; of a Vision Transformer the raw
            tokens, where the neck reads its class token. With
            ``mask_token='embed'`` it has a ``patch_embed`` that returns
            tokens (B, N, C) and their map's size, as those of MMPretrain do.
        neck (dict | nn.Module): The decoder, predicts the values of all
            units.
        head (dict | nn.Module): Makes the target and the loss.
        unit_size (int): Side of a mask unit in pixels. Defaults to 32.
        mask_token (str): ``'embed'`` or ``'pixel'``. Defaults to
            ``'embed'``.
        mask_scope (str): ``'batch'``, one mask for the images of a batch, or
            ``'image'``, one for every image. Defaults to ``'image'``.
        **kwargs: See :class:`MaskedImageModeling`.

    Raises:
        ValueError: If ``mask_token`` is none of these, or the backbone lacks
            what it needs; while encoding, if the images are padded, or the
            backbone returns no feature maps or none that fit the mask.
    """

    def __init__(self,
                 backbone: Any,
                 neck: Any,
                 head: Any,
                 unit_size: int = 32,
                 mask_token: str = 'embed',
                 mask_scope: str = 'image',
                 **kwargs: Any) -> None:
        if mask_token not in ('embed', 'pixel'):
            raise ValueError("expected mask_token to be 'embed' or 'pixel', "
                             f'got {mask_token!r}')
        self._unit_size = unit_size
        super().__init__(backbone, neck, head, mask_scope=mask_scope, **kwargs)
        self.mask_space = mask_token
        if mask_token == 'pixel':
            shape: Tuple[int, ...] = (1, _image_channels(self.backbone), 1, 1)
        elif not hasattr(self.backbone, 'patch_embed'):
            raise ValueError(
                'expected a backbone with a patch_embed, whose tokens are '
                f'exchanged, got {type(self.backbone).__name__}; set '
                "mask_token='pixel'")
        else:
            dims = self.backbone.patch_embed.projection.out_channels
            shape = (1, 1, dims)
        self.mask_token = nn.Parameter(torch.zeros(shape))

    def init_weights(self) -> None:
        """Draw the mask token, unless it was loaded."""
        super().init_weights()
        cfgs = self.init_cfg or []
        cfgs = [cfgs] if isinstance(cfgs, dict) else cfgs
        if all(cfg['type'] != 'Pretrained' for cfg in cfgs):
            nn.init.normal_(self.mask_token, std=.02)

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels."""
        return self._unit_size

    def encode(self, images: Tensor, plan: MaskPlan) -> NeckInputs:
        """Encode all units, with mask tokens where they are masked."""
        grid = unit_grid(images.shape[2:], self.unit_size)
        layout = VisibleLayout.from_mask(plan.layout, grid)
        layout.check_batch(len(images))
        if layout.valid is not None:
            raise ValueError('expected images of one size, since a dense '
                             'backbone reads their padding; use GreenMIM for '
                             'a padded batch')
        masked = ~layout.visible.to(images.device, non_blocking=True)
        if self.mask_space == 'pixel':
            pixels = _enlarge(masked, images.shape[2:])[:, None]
            maps = self.backbone(torch.where(pixels, self.mask_token, images))
        else:
            maps = self._encode_with_tokens(images, masked)
        everything = VisibleLayout.from_mask(
            torch.zeros(1, *grid, dtype=torch.bool))
        if getattr(self.neck, 'reads_class_token', False):
            tokens, class_token = self._split(maps[-1], images)
            return (units_of_map(tokens,
                                 grid).flatten(1, 2), everything, class_token)
        if any(x.ndim != 4 for x in maps):
            raise ValueError(
                'expected a backbone that returns feature maps (B, C, h, w), '
                f'got {[tuple(x.shape) for x in maps]}; set '
                "out_type='featmap' of a VisionTransformer, "
                'gap_before_final_norm=False of a ConvNeXt')
        latent = [units_of_map(x, grid) for x in maps]
        if getattr(self.neck, 'reads_stages', False):
            return latent, everything
        return latent[-1].flatten(1, 2), everything

    def _split(self, x: Tensor, images: Tensor) -> Tuple[Tensor, Tensor]:
        """Raw tokens (B, 1 + N, C) as a map (B, C, H, W) and class token."""
        patch = self.backbone.patch_embed.projection.stride
        size = [side // step for side, step in zip(images.shape[2:], patch)]
        if x.ndim != 3 or x.shape[1] != 1 + size[0] * size[1]:
            raise ValueError(
                'expected a class token and {}x{} tokens for the neck, got '
                "{}; set out_type='raw' and with_cls_token=True of the "
                'backbone'.format(*size, tuple(x.shape)))
        return x[:, 1:].transpose(1, 2).unflatten(2, size), x[:, 0]

    def _encode_with_tokens(self, images: Tensor,
                            masked: Tensor) -> Tuple[Tensor, ...]:

        def put_tokens(module: nn.Module, args: tuple, out: tuple) -> tuple:
            x, size = out
            where = _enlarge(masked, size).flatten(1)[:, :, None]
            return torch.where(where, self.mask_token.to(x.dtype), x), size

        hook = self.backbone.patch_embed.register_forward_hook(put_tokens)
        try:
            return self.backbone(images)
        finally:
            hook.remove()


def _image_channels(backbone: Any) -> int:
    if isinstance(backbone, VisibleBackbone):
        return backbone.image_channels
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):  # the first reads the images
            return module.in_channels
    raise ValueError('expected a backbone that reads images by a convolution, '
                     f'got {type(backbone).__name__}')


def _enlarge(masked: Tensor, size: Tuple[int, ...]) -> Tensor:
    """A mask of units (M, Gh, Gw) on a finer map, (M, height, width)."""
    rows, cols = size[0] // masked.shape[1], size[1] // masked.shape[2]
    return masked.repeat_interleave(rows, 1).repeat_interleave(cols, 2)
