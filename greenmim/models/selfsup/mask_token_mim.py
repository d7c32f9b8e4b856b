# Copyright (c) greenmim authors. All rights reserved.
"""Dense methods. The letters of shapes are defined in :mod:`greenmim.ops`."""
from typing import Any, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from greenmim.ops import MaskPlan, VisibleLayout, unit_grid, units_of_map
from greenmim.registry import MODELS
from ..utils import Encoded, draw_mask_token
from ..visible import image_channels
from .masked_image_modeling import MaskedImageModeling


@MODELS.register_module()
class MaskTokenMIM(MaskedImageModeling):
    """Masked image modelling that computes all tokens of any backbone.

    A learned token replaces what is masked: patch embeddings, as in `SimMIM
    <https://arxiv.org/abs/2111.09886>`_, or pixels, as in `FastMIM
    <https://arxiv.org/abs/2212.06593>`_.

    Args:
        backbone (dict | nn.Module): A backbone that returns feature maps, or
            a Vision Transformer that returns raw tokens, whose class token
            the neck may read. With ``mask_token='embed'`` it calls its
            ``patch_embed`` on the images first, which has a convolution
            ``projection`` and returns tokens (B, N, C) and the size of their
            map, as in most of MMPretrain's transformers. With
            ``mask_token='pixel'`` the channels of the images are its
            attribute ``image_channels``, if it has one, or those of its
            first convolution.
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
            self.image_channels: int = (
                getattr(self.backbone, 'image_channels', None)
                or image_channels(self.backbone))
            shape: Tuple[int, ...] = (1, self.image_channels, 1, 1)
        else:
            embed = _find_patch_embed(self.backbone, unit_size)
            self.image_channels = embed.projection.in_channels
            shape = (1, 1, embed.projection.out_channels)
            # The mask reaches the patch embedding as a channel of the images
            # and not as an attribute, so that a forward that is computed
            # again to save memory is masked, too.
            self.backbone.register_forward_pre_hook(
                self._append_mask, with_kwargs=True)
            embed.projection.register_forward_pre_hook(_drop_mask)
            embed.register_forward_hook(self._replace_tokens)
        self.mask_token = nn.Parameter(torch.zeros(shape))

    def init_weights(self) -> None:
        """Draw the mask token, unless it was loaded."""
        super().init_weights()
        draw_mask_token(self)

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels."""
        return self._unit_size

    def encode(self, images: Tensor, plan: MaskPlan) -> Encoded:
        """Encode all units, with mask tokens where they are masked."""
        grid = unit_grid(images.shape[2:], self.unit_size)
        layout = VisibleLayout.from_mask(plan.layout, grid)
        layout.check_batch(len(images))
        if layout.valid is not None:
            raise ValueError('expected images of one size, since a dense '
                             'backbone reads their padding; use GreenMIM for '
                             'a padded batch')
        masked = layout.masked.to(images.device, non_blocking=True)
        self._check_channels(images)
        if self.mask_space == 'pixel':
            pixels = _enlarge(masked, images.shape[2:])[:, None]
            outs = self.backbone(torch.where(pixels, self.mask_token, images))
        else:
            outs = self.backbone(images, masked=masked)
        maps, class_token = self._split(outs, images)
        return Encoded([units_of_map(x_BCHW, grid) for x_BCHW in maps],
                       class_token,
                       VisibleLayout.from_mask(
                           torch.zeros(1, *grid, dtype=torch.bool)))

    def _split(self, outs: Sequence[Tensor],
               images: Tensor) -> Tuple[Sequence[Tensor], Optional[Tensor]]:
        """Feature maps (B, C, H, W) and class token (B, C) of a backbone."""
        if all(x.ndim == 4 for x in outs):
            return outs, None
        size: Tuple[int, ...] = ()
        embed = getattr(self.backbone, 'patch_embed', None)
        projection = getattr(embed, 'projection', None)
        if projection is not None:
            size = tuple(
                side // step
                for side, step in zip(images.shape[2:], projection.stride))
        maps = []
        for x in outs:
            if x.ndim != 3 or not size or x.shape[1] != 1 + size[0] * size[1]:
                raise ValueError(
                    'expected a backbone that returns feature maps '
                    '(B, C, h, w), or a class token and the tokens of all '
                    f'patches, got {[tuple(x.shape) for x in outs]}; set '
                    "out_type='featmap' of a VisionTransformer (or 'raw', "
                    'with a class token), gap_before_final_norm=False of a '
                    'ConvNeXt')
            maps.append(x[:, 1:].transpose(1, 2).unflatten(2, size))
        return maps, outs[-1][:, 0]

    def _check_channels(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.image_channels:
            raise ValueError(
                f'expected images of shape (B, {self.image_channels}, H, W), '
                f'which {type(self.backbone).__name__} reads, got '
                f'{tuple(images.shape)}; in_channels of the backbone and the '
                'channels that the pipeline loads must agree')

    def _append_mask(self, module: nn.Module, args: tuple,
                     kwargs: dict) -> Optional[Tuple[tuple, dict]]:
        """Forward pre-hook of the backbone: the mask becomes a channel."""
        images, *_ = *args, *kwargs.values()
        # Another channel of the images would pass for the mask.
        self._check_channels(images)
        if 'masked' not in kwargs:
            return None
        pixels = _enlarge(kwargs['masked'], images.shape[2:])[:, None]
        pixels = pixels.to(images.dtype).expand(len(images), -1, -1, -1)
        return (torch.cat([images, pixels], dim=1), ), {}

    def _replace_tokens(self, module: nn.Module, args: tuple,
                        out: tuple) -> Optional[tuple]:
        """Forward hook of the patch embedding: put the mask tokens in."""
        pixels = args[0][:, self.image_channels:]
        if not pixels.shape[1]:
            return None
        x_BNC, size = out
        rows, cols = (side // tokens
                      for side, tokens in zip(pixels.shape[2:], size))
        masked = pixels[:, 0, ::rows, ::cols].flatten(1)[:, :, None] > 0
        return torch.where(masked, self.mask_token.to(x_BNC.dtype),
                           x_BNC), size


def _find_patch_embed(backbone: nn.Module, unit_size: int) -> Any:
    """The module that embeds patches, none of which is in two units."""
    embed = getattr(backbone, 'patch_embed', None)
    projection = getattr(embed, 'projection', None)
    name = type(backbone).__name__
    if not isinstance(projection, nn.Conv2d):
        found = f'one of type {type(embed).__name__}' if embed else 'none'
        raise ValueError(
            'expected a backbone with a patch_embed, whose tokens are '
            'replaced, that has a convolution named projection, got '
            f"{name} with {found}; set mask_token='pixel'")
    if any(unit_size % step for step in projection.stride):
        raise ValueError(
            f'expected a unit_size that the stride {projection.stride} of '
            f'the patch embedding of {name} divides, got {unit_size}')
    return embed


def _drop_mask(conv: nn.Conv2d, args: tuple) -> tuple:
    """Forward pre-hook of the convolution that embeds patches."""
    return (args[0][:, :conv.in_channels], )


def _enlarge(masked: Tensor, size: Sequence[int]) -> Tensor:
    """A mask of units (M, Gh, Gw) on a finer map, (M, height, width)."""
    rows, cols = size[0] // masked.shape[1], size[1] // masked.shape[2]
    return masked.repeat_interleave(rows, 1).repeat_interleave(cols, 2)
