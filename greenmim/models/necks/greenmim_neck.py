# Copyright (c) greenmim authors. All rights reserved.
"""A transformer decoder.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import List, Optional, Union

import torch
from mmpretrain.models.backbones.vision_transformer import \
    TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import VisibleLayout, gather_units, sincos_positions
from greenmim.registry import MODELS
from ..utils import Encoded, draw_mask_token
from .base import Neck


@MODELS.register_module()
class GreenMIMNeck(Neck):
    """Decoder of GreenMIM: MAE's, without a class token and for any grid.

    The latent of the visible units is embedded, a learned token is put in
    the place of every masked unit, fixed positions are added, and transformer
    blocks, a norm and a linear layer predict the values of every unit. Mask
    token, positions and class token are options: FastMIM's decoder gets all
    units and has no positions.

    Args:
        in_channels (int): Channels of the latent, those of the backbone's
            last stage. Defaults to 1024.
        embed_dims (int): Channels of the decoder, a multiple of
            ``num_heads`` and, for the positions, of 4. Defaults to 512.
        depth (int): Number of transformer blocks. Defaults to 1.
        num_heads (int): Attention heads of a block. Defaults to 16.
        mlp_ratio (float): Hidden channels of a block's FFN in multiples of
            ``embed_dims``. Defaults to 4.
        out_channels (int): Values predicted for a unit: its side squared
            times the channels of the images, when the target is pixels.
            Defaults to 3072, for units of 32x32 RGB pixels.
        norm_cfg (dict): Config of the norm layers.
            Defaults to ``dict(type='LN', eps=1e-6)``.
        pos_embed (bool): Add the positions. Defaults to True.
        mask_token (bool): Have a token for masked units; without one the
            latent must hold all units. Defaults to True.
        class_token (bool): Run the blocks over the backbone's class token as
            well. Defaults to False.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.

    Raises:
        ValueError: If ``embed_dims`` is no such multiple.
    """

    def __init__(self,
                 in_channels: int = 1024,
                 embed_dims: int = 512,
                 depth: int = 1,
                 num_heads: int = 16,
                 mlp_ratio: float = 4.,
                 out_channels: int = 32 * 32 * 3,
                 norm_cfg: dict = dict(type='LN', eps=1e-6),
                 pos_embed: bool = True,
                 mask_token: bool = True,
                 class_token: bool = False,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if embed_dims % num_heads or pos_embed and embed_dims % 4:
            raise ValueError(
                'expected embed_dims to be a multiple of '
                f'num_heads={num_heads} and, for the positions, of 4, got '
                f'{embed_dims}')
        self.in_channels = in_channels
        self.embed_dims = embed_dims
        self.pos_embed = pos_embed
        self.class_token = class_token

        self.decoder_embed = nn.Linear(in_channels, embed_dims)
        self.mask_token = None
        if mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.decoder_blocks = nn.ModuleList([
            TransformerEncoderLayer(
                embed_dims,
                num_heads,
                feedforward_channels=int(mlp_ratio * embed_dims),
                qkv_bias=True,
                norm_cfg=norm_cfg) for _ in range(depth)
        ])
        self.decoder_norm = build_norm_layer(norm_cfg, embed_dims)
        self.decoder_pred = nn.Linear(embed_dims, out_channels)

    def init_weights(self) -> None:
        """Draw the mask token, unless it was loaded."""
        super().init_weights()
        if self.mask_token is not None:
            draw_mask_token(self)

    def decode(self, encoded: Encoded) -> Tensor:
        """See :meth:`Neck.decode`."""
        return self(encoded.latent, encoded.layout,
                    encoded.class_token if self.class_token else None)

    def forward(self,
                latent: Tensor,
                mask: Union[Tensor, VisibleLayout],
                class_token: Optional[Tensor] = None) -> Tensor:
        """Predict the values of all units from the visible ones.

        Args:
            latent (Tensor): Shape (B, K, in_channels), the visible units in
                row-major order; or (B, K * T, in_channels / T), whose T
                tokens a unit are embedded together.
            mask (Tensor | VisibleLayout): Bool of shape (B, Gh, Gw), or
                (1, Gh, Gw) for one mask shared by the batch, True = masked;
                or the layout made from it.
            class_token (Tensor, optional): Shape (B, in_channels), if the
                decoder reads it. Defaults to None.

        Returns:
            Tensor: Shape (B, L, D) for D = ``out_channels``, all units in
            row-major order.

        Raises:
            ValueError: If latent or class token do not fit the mask or the
                decoder.
        """
        layout = VisibleLayout.from_mask(mask)
        self._check(latent, layout, class_token)
        B, K = len(latent), layout.num_visible
        x_BKC = self.decoder_embed(latent.reshape(B, K, self.in_channels))
        x_BLC = self._add_masked_units(x_BKC, layout)
        x_BLC = self.run_blocks(x_BLC, layout, class_token)
        return self.decoder_pred(self.decoder_norm(x_BLC))

    def run_blocks(self,
                   x_BLC: Tensor,
                   layout: VisibleLayout,
                   class_token: Optional[Tensor] = None) -> Tensor:
        """Add the positions, run the blocks on units and class token."""
        x = x_BLC
        if self.pos_embed:
            dtype = torch.promote_types(x.dtype, torch.float32)
            x = x + sincos_positions(layout.grid, self.embed_dims, dtype,
                                     x.device).to(x.dtype)
        if class_token is not None:
            x = torch.cat([self.decoder_embed(class_token)[:, None], x], dim=1)
        valid = None
        if layout.valid is not None:
            valid = layout.valid.flatten(1).to(x.device, non_blocking=True)
            if class_token is not None:
                valid = F.pad(valid, (1, 0), value=True)
        for block in self.decoder_blocks:
            x = block(x) if valid is None else _attend(block, x, valid)
        return x if class_token is None else x[:, 1:]

    def _add_masked_units(self, x_BKC: Tensor,
                          layout: VisibleLayout) -> Tensor:
        """Put the mask token in the place of masked units, (B, L, C)."""
        if self.mask_token is None:
            return x_BKC
        token = self.mask_token.expand(len(x_BKC), -1, -1)
        restore = layout.restore.to(x_BKC.device, non_blocking=True)
        return gather_units(torch.cat([x_BKC, token], dim=1), restore)

    def _check(self, latent: Tensor, layout: VisibleLayout,
               class_token: Optional[Tensor]) -> None:
        """Refuse inputs that do not fit the mask or the decoder."""
        K = layout.num_visible
        if (latent.ndim != 3 or latent.shape[1] % K
                or latent[0].numel() != K * self.in_channels):
            raise ValueError(
                f'expected a latent of shape (B, {K}, {self.in_channels}), '
                'one token a visible unit of the mask, or t tokens a unit and '
                f'in_channels t times theirs, got {tuple(latent.shape)}; set '
                'in_channels of the neck to what a unit has in the last stage '
                'of the backbone')
        layout.check_batch(len(latent))
        if self.class_token and class_token is None:
            raise ValueError(
                'expected a class token, got none; set class_token=False of '
                'the neck, or choose a backbone with a class token (for '
                "MaskTokenMIM, one with out_type='raw')")
        if class_token is not None and not self.class_token:
            raise ValueError('expected no class token, got one; set '
                             'class_token=True of the neck')
        if self.mask_token is None and K != layout.num_units:
            raise ValueError(
                f'expected the tokens of all units, got those of {K} visible '
                'ones; set mask_token=True of the neck')


def _attend(block: TransformerEncoderLayer, x: Tensor,
            valid: Tensor) -> Tensor:
    """Run a block on tokens (B, N, C) that attend to valid ones, (B, N)."""
    attn = block.attn
    shape = (*x.shape[:2], 3, attn.num_heads, attn.head_dims)
    q, k, v = attn.qkv(block.ln1(x)).view(shape).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=valid[:, None, None],
        dropout_p=attn.attn_drop if block.training else 0.)
    out = attn.proj(out.transpose(1, 2).flatten(2))
    x = x + attn.out_drop(attn.gamma1(attn.proj_drop(out)))
    return block.ffn(block.ln2(x), identity=x)
