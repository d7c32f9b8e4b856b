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
            the neck may read. With ``mask_token='embed'`` it has a
            ``patch_embed`` that returns tokens (B, N, C) and the size of
            their map, as MMPretrain's backbones do.
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
            shape: Tuple[int, ...] = (1, image_channels(self.backbone), 1, 1)
        elif not hasattr(self.backbone, 'patch_embed'):
            raise ValueError(
                'expected a backbone with a patch_embed, whose tokens are '
                f'replaced, got {type(self.backbone).__name__}; set '
                "mask_token='pixel'")
        else:
            embed = self.backbone.patch_embed
            embed.register_forward_hook(self._replace_tokens)
            shape = (1, 1, embed.projection.out_channels)
        self.mask_token = nn.Parameter(torch.zeros(shape))
        # The mask of the images in the backbone, read by the hook.
        self._masked: Optional[Tensor] = None

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
        if self.mask_space == 'pixel':
            pixels = _enlarge(masked, images.shape[2:])[:, None]
            outs = self.backbone(torch.where(pixels, self.mask_token, images))
        else:
            self._masked = masked
            try:
                outs = self.backbone(images)
            finally:  # other calls of the backbone are unmasked
                self._masked = None
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
        if hasattr(self.backbone, 'patch_embed'):
            patch = self.backbone.patch_embed.projection.stride
            size = tuple(side // step
                         for side, step in zip(images.shape[2:], patch))
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

    def _replace_tokens(self, module: nn.Module, args: tuple,
                        out: tuple) -> Optional[tuple]:
        """Forward hook of the patch embedding: put the mask tokens in."""
        if self._masked is None:
            return None
        x_BNC, size = out
        masked = _enlarge(self._masked, size).flatten(1)[:, :, None]
        return torch.where(masked, self.mask_token.to(x_BNC.dtype),
                           x_BNC), size


def _enlarge(masked: Tensor, size: Sequence[int]) -> Tensor:
    """A mask of units (M, Gh, Gw) on a finer map, (M, height, width)."""
    rows, cols = size[0] // masked.shape[1], size[1] // masked.shape[2]
    return masked.repeat_interleave(rows, 1).repeat_interleave(cols, 2)
