# Copyright (c) greenmim authors. All rights reserved.
from typing import List, Optional, Union

import torch
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import \
    TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn

from greenmim.ops import VisibleLayout, gather_units, sincos_positions
from greenmim.registry import MODELS


@MODELS.register_module()
class GreenMIMNeck(BaseModule):
    """Decoder of GreenMIM: MAE's, without a class token and for any grid.

    The latent of the visible units is embedded, a learned token is put in
    the place of every masked unit, fixed positions are added, and transformer
    blocks, a norm and a linear layer predict the values of every unit.

    Args:
        in_channels (int): Channels of the latent, those of the backbone's
            last stage. Defaults to 1024.
        embed_dims (int): Channels of the decoder, a multiple of 4 and of
            ``num_heads``. Defaults to 512.
        depth (int): Number of transformer blocks. Defaults to 1.
        num_heads (int): Attention heads of a block. Defaults to 16.
        mlp_ratio (float): Hidden channels of a block's FFN in multiples of
            ``embed_dims``. Defaults to 4.
        out_channels (int): Values predicted for a unit: its side squared
            times the channels of the images, when the target is pixels.
            Defaults to 3072, for units of 32x32 RGB pixels.
        norm_cfg (dict): Config of the norm layers.
            Defaults to ``dict(type='LN', eps=1e-6)``.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.
    """

    def __init__(self,
                 in_channels: int = 1024,
                 embed_dims: int = 512,
                 depth: int = 1,
                 num_heads: int = 16,
                 mlp_ratio: float = 4.,
                 out_channels: int = 32 * 32 * 3,
                 norm_cfg: dict = dict(type='LN', eps=1e-6),
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if embed_dims % 4 or embed_dims % num_heads:
            raise ValueError(
                'expected embed_dims to be a multiple of 4 (the positions '
                f'need it) and of num_heads={num_heads}, got {embed_dims}')
        self.in_channels = in_channels
        self.embed_dims = embed_dims

        self.decoder_embed = nn.Linear(in_channels, embed_dims)
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
        cfgs = self.init_cfg or []
        cfgs = [cfgs] if isinstance(cfgs, dict) else cfgs
        if all(cfg['type'] != 'Pretrained' for cfg in cfgs):
            nn.init.normal_(self.mask_token, std=.02)

    def forward(self, latent: Tensor, mask: Union[Tensor,
                                                  VisibleLayout]) -> Tensor:
        """Predict the values of all units from the visible ones.

        Args:
            latent (Tensor): Shape (B, K, in_channels), the visible units in
                row-major order.
            mask (Tensor | VisibleLayout): Bool of shape (B, Gh, Gw), or
                (1, Gh, Gw) for one mask shared by the batch, True = masked;
                or the layout made from it.

        Returns:
            Tensor: Shape (B, L, out_channels), all ``L = Gh * Gw`` units in
            row-major order.

        Raises:
            ValueError: If the latent does not fit the mask.
        """
        layout = VisibleLayout.from_mask(mask)
        expected = (layout.num_visible, self.in_channels)
        if latent.ndim != 3 or latent.shape[1:] != expected:
            raise ValueError(
                'expected a latent of shape (B, {}, {}), one token a visible '
                'unit of the mask, got {}'.format(*expected,
                                                  tuple(latent.shape)))
        layout.check_batch(latent.shape[0])

        x = self.decoder_embed(latent)
        token = self.mask_token.expand(x.shape[0], -1, -1)
        restore = layout.restore.to(x.device, non_blocking=True)
        x = gather_units(torch.cat([x, token], dim=1), restore)
        dtype = torch.promote_types(x.dtype, torch.float32)
        x = x + sincos_positions(layout.grid, self.embed_dims, dtype,
                                 x.device).to(x.dtype)
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))
