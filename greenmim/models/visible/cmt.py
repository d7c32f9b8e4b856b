# Copyright (c) greenmim authors. All rights reserved.
"""The blocks of CMT, dense and on visible tokens.

``x_BCHW`` is a map, ``x_BKTC`` are unit-major tokens (see
:mod:`greenmim.ops.mask_unit`).
"""
from typing import Any, Tuple

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.drop import build_dropout
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import Halo, depthwise_conv


def norm_tokens(norm: nn.Module, x_BKTC: Tensor) -> Tensor:
    """A batch norm of visible tokens, by their statistics in training.

    Args:
        norm (nn.Module): The dense batch norm.
        x_BKTC (Tensor): Unit-major tokens, (B, K, T, C).

    Returns:
        Tensor: Shape (B, K, T, C).

    Raises:
        ValueError: If there is but one token to take statistics of.
    """
    x = x_BKTC.reshape(-1, x_BKTC.shape[-1], 1, 1)
    if len(x) == 1 and norm.training and isinstance(norm, nn.BatchNorm2d):
        raise ValueError(
            'expected more than one visible token in a batch, as batch norms '
            'take their statistics of them in training, got one; enlarge '
            'batch or images, or lower the mask ratio')
    return norm(x).view(x_BKTC.shape)


def linear_tokens(conv: nn.Conv2d, x_BKTC: Tensor) -> Tensor:
    """A 1x1 convolution of visible tokens."""
    return F.linear(x_BKTC, conv.weight.flatten(1), conv.bias)


def depthwise_tokens(conv: nn.Conv2d, x_BKTC: Tensor, halo: Halo) -> Tensor:
    """A depthwise 3x3 convolution of visible tokens."""
    return depthwise_conv(x_BKTC, halo, conv.weight, conv.bias)


class IRFFN(BaseModule):
    """Inverted residual feed-forward network (section 3.4).

    Args:
        embed_dims (int): Channels.
        hidden_dims (int): Hidden channels.
        drop_rate (float): Dropout of the hidden channels.
        norm_cfg (dict): The batch norms.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, drop_rate: float,
                 norm_cfg: dict) -> None:
        super().__init__()
        self.conv1: Any = nn.Sequential(
            nn.Conv2d(embed_dims, hidden_dims, 1), nn.GELU(),
            build_norm_layer(norm_cfg, hidden_dims)[1])
        self.proj = nn.Conv2d(
            hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims)
        self.proj_bn = build_norm_layer(norm_cfg, hidden_dims)[1]
        self.conv2: Any = nn.Sequential(
            nn.Conv2d(hidden_dims, embed_dims, 1),
            build_norm_layer(norm_cfg, embed_dims)[1])
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Dense, (B, C, H, W)."""
        x = self.drop(self.conv1(x_BCHW))
        x = self.proj_bn(F.gelu(self.proj(x) + x))
        return self.drop(self.conv2(x))

    def forward_visible(self, x_BKTC: Tensor, halo: Halo) -> Tensor:
        """Visible tokens only, (B, K, T, C)."""
        x = F.gelu(linear_tokens(self.conv1[0], x_BKTC))
        x = self.drop(norm_tokens(self.conv1[2], x))
        x = F.gelu(depthwise_tokens(self.proj, x, halo) + x)
        x = norm_tokens(self.proj_bn, x)
        x = norm_tokens(self.conv2[1], linear_tokens(self.conv2[0], x))
        return self.drop(x)


class LightweightAttention(BaseModule):
    """Attention to sub-sampled keys, with a bias (section 3.3).

    Args:
        embed_dims (int): Channels.
        num_heads (int): Attention heads.
        sr_ratio (int): Kernel and stride of the depthwise convolution that
            keys and values read, 1 for none.
        qkv_bias (bool): Whether queries, keys and values have a bias.
        attn_drop_rate (float): Dropout of attention weights.
        drop_rate (float): Dropout of the output.
        norm_cfg (dict): The batch norm behind the convolution.
    """

    def __init__(self, embed_dims: int, num_heads: int, sr_ratio: int,
                 qkv_bias: bool, attn_drop_rate: float, drop_rate: float,
                 norm_cfg: dict) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.q = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.k = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.v = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        if sr_ratio > 1:
            self.sr: Any = nn.Sequential(
                nn.Conv2d(
                    embed_dims,
                    embed_dims,
                    sr_ratio,
                    stride=sr_ratio,
                    groups=embed_dims),
                build_norm_layer(norm_cfg, embed_dims)[1])
        self.attn_drop_rate = attn_drop_rate
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x_BNC: Tensor, hw_shape: Tuple[int, int],
                bias: Tensor) -> Tensor:
        """Dense, (B, N, C); the bias is (1, heads, N, keys)."""
        reduced = x_BNC
        if self.sr_ratio > 1:
            x = x_BNC.transpose(1, 2).unflatten(2, hw_shape)
            reduced = self.sr(x).flatten(2).transpose(1, 2)
        return self.attend(x_BNC, reduced, bias)

    def forward_visible(self, x_BKTC: Tensor, bias: Tensor) -> Tensor:
        """Visible tokens only, (B, K, T, C); the bias (M, heads, N, keys)."""
        reduced = x_BKTC
        if self.sr_ratio > 1:
            conv, norm = self.sr
            B, K, T, C = x_BKTC.shape
            size = self.sr_ratio
            side = round(T**0.5) // size
            x = x_BKTC.view(B, K, side, size, side, size, C)
            x = (x.transpose(3, 4) * conv.weight.permute(1, 2, 3, 0)).sum(
                (4, 5))
            x = x.flatten(2, 3) + conv.bias
            reduced = norm_tokens(norm, x)
        out = self.attend(x_BKTC.flatten(1, 2), reduced.flatten(1, 2), bias)
        return out.view(x_BKTC.shape)

    def attend(self, x_BNC: Tensor, reduced: Tensor, bias: Tensor) -> Tensor:
        """Attention of all tokens to reduced ones, (B, N, C)."""
        q, k, v = (layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
                   for layer, x in ((self.q, x_BNC), (self.k, reduced),
                                    (self.v, reduced)))
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=bias.to(q.dtype),
            dropout_p=self.attn_drop_rate if self.training else 0.)
        return self.drop(self.proj(out.transpose(1, 2).flatten(2)))


class CMTBlock(BaseModule):
    """Local perception, lightweight attention, IRFFN (section 3.2).

    Args:
        embed_dims (int): Channels.
        num_heads (int): Attention heads.
        hidden_dims (int): Hidden channels of the IRFFN.
        sr_ratio (int): Sub-sampling of keys and values.
        qkv_bias (bool): Whether queries, keys and values have a bias.
        drop_rate (float): Dropout of projections.
        attn_drop_rate (float): Dropout of attention weights.
        drop_path_rate (float): Stochastic depth.
        norm_cfg (dict): The layer norms.
        bn_cfg (dict): The batch norms.
    """

    def __init__(self, embed_dims: int, num_heads: int, hidden_dims: int,
                 sr_ratio: int, qkv_bias: bool, drop_rate: float,
                 attn_drop_rate: float, drop_path_rate: float, norm_cfg: dict,
                 bn_cfg: dict) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = LightweightAttention(embed_dims, num_heads, sr_ratio,
                                         qkv_bias, attn_drop_rate, drop_rate,
                                         bn_cfg)
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = IRFFN(embed_dims, hidden_dims, drop_rate, bn_cfg)
        self.drop_path = build_dropout(
            dict(type='DropPath', drop_prob=drop_path_rate))

    def forward(self, x_BCHW: Tensor, bias: Tensor) -> Tensor:
        """Dense, (B, C, H, W)."""
        hw_shape = x_BCHW.shape[2:]
        x = self.proj(x_BCHW) + x_BCHW
        x = x.flatten(2).transpose(1, 2)
        x = x + self.drop_path(self.attn(self.norm1(x), hw_shape, bias))
        normed = self.norm2(x).transpose(1, 2).unflatten(2, hw_shape)
        x = x.transpose(1, 2).unflatten(2, hw_shape)
        return x + self.drop_path(self.mlp(normed))

    def forward_visible(self, x_BKTC: Tensor, bias: Tensor,
                        halo: Halo) -> Tensor:
        """Visible tokens only, (B, K, T, C)."""
        x = depthwise_tokens(self.proj, x_BKTC, halo) + x_BKTC
        x = x + self.drop_path(self.attn.forward_visible(self.norm1(x), bias))
        return x + self.drop_path(
            self.mlp.forward_visible(self.norm2(x), halo))
