# Copyright (c) greenmim authors. All rights reserved.
"""The blocks of PVT v2, dense and on visible tokens.

``x_BNC`` are the N = H * W tokens of a map in row-major order, ``x_BKTC``
unit-major tokens (see :mod:`greenmim.ops.mask_unit`).
"""
from typing import Tuple

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks.drop import build_dropout
from mmengine.model import BaseModule
from mmpretrain.models.backbones.twins import GlobalSubsampledAttention
from torch import Tensor, nn

from greenmim.ops import Halo, depthwise_conv
from .spatial_reduction import visible_reduced_attention


class ConvFFN(BaseModule):
    """Feed-forward network with a depthwise 3x3 convolution (section 3.2).

    Args:
        embed_dims (int): Channels.
        feedforward_channels (int): Hidden channels.
        act_cfg (dict): Activation, behind the convolution.
        drop_rate (float): Dropout of both linear layers' outputs.
        drop_path_rate (float): Stochastic depth.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int,
                 act_cfg: dict, drop_rate: float,
                 drop_path_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, feedforward_channels)
        self.dwconv = nn.Conv2d(
            feedforward_channels,
            feedforward_channels,
            3,
            padding=1,
            groups=feedforward_channels)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Linear(feedforward_channels, embed_dims)
        self.drop = nn.Dropout(drop_rate)
        self.out_drop = build_dropout(
            dict(type='DropPath', drop_prob=drop_path_rate))

    def forward(self, x_BNC: Tensor, hw_shape: Tuple[int, int]) -> Tensor:
        """Dense, (B, N, C)."""
        x = self.fc1(x_BNC)
        x = x.transpose(1, 2).unflatten(2, hw_shape)
        return self.finish(self.dwconv(x).flatten(2).transpose(1, 2))

    def forward_visible(self, x_BKTC: Tensor, halo: Halo) -> Tensor:
        """Visible tokens only, (B, K, T, C)."""
        x = self.fc1(x_BKTC)
        return self.finish(
            depthwise_conv(x, halo, self.dwconv.weight, self.dwconv.bias))

    def finish(self, x: Tensor) -> Tensor:
        """What follows the convolution, token by token."""
        x = self.drop(self.act(x))
        return self.out_drop(self.drop(self.fc2(x)))


class PVTv2Block(BaseModule):
    """Attention to spatially reduced keys, and a convolutional FFN.

    Args:
        embed_dims (int): Channels.
        num_heads (int): Attention heads.
        feedforward_channels (int): Hidden channels of the FFN.
        sr_ratio (int): Kernel and stride of the spatial reduction.
        qkv_bias (bool): Whether queries, keys and values have a bias.
        drop_rate (float): Dropout of projections.
        attn_drop_rate (float): Dropout of attention weights.
        drop_path_rate (float): Stochastic depth.
        act_cfg (dict): Activation of the FFN.
        norm_cfg (dict): Norms of the block.
        conv_norm_cfg (dict): Norm behind the spatial reduction.
    """

    def __init__(self, embed_dims: int, num_heads: int,
                 feedforward_channels: int, sr_ratio: int, qkv_bias: bool,
                 drop_rate: float, attn_drop_rate: float,
                 drop_path_rate: float, act_cfg: dict, norm_cfg: dict,
                 conv_norm_cfg: dict) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = GlobalSubsampledAttention(
            embed_dims,
            num_heads,
            norm_cfg=conv_norm_cfg,
            qkv_bias=qkv_bias,
            sr_ratio=sr_ratio,
            attn_drop=attn_drop_rate,
            proj_drop=drop_rate,
            dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate))
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.ffn = ConvFFN(embed_dims, feedforward_channels, act_cfg,
                           drop_rate, drop_path_rate)

    def forward(self, x_BNC: Tensor, hw_shape: Tuple[int, int]) -> Tensor:
        """Dense, (B, N, C)."""
        x_BNC = x_BNC + self.attn(self.norm1(x_BNC), hw_shape)
        return x_BNC + self.ffn(self.norm2(x_BNC), hw_shape)

    def forward_visible(self, x_BKTC: Tensor, halo: Halo) -> Tensor:
        """Visible tokens only, (B, K, T, C)."""
        x_BKTC = x_BKTC + visible_reduced_attention(self.attn,
                                                    self.norm1(x_BKTC))
        return x_BKTC + self.ffn.forward_visible(self.norm2(x_BKTC), halo)
