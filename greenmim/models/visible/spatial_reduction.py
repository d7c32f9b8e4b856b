# Copyright (c) greenmim authors. All rights reserved.
"""Attention to keys and values that a convolution reduces, inside units.

Its kernel equals its stride and divides the side of a mask unit, so that a
reduced token covers visible tokens alone, or masked ones. ``x_BKTC`` are
unit-major tokens (see :mod:`greenmim.ops.mask_unit`).
"""
from mmpretrain.models.backbones.twins import GlobalSubsampledAttention
from torch import Tensor, nn
from torch.nn import functional as F


def check_in_units(conv: nn.Conv2d, side: int) -> None:
    """Refuse a convolution that reaches from one mask unit into another.

    Args:
        conv (nn.Conv2d): The convolution.
        side (int): Tokens (or pixels) along a unit's side.

    Raises:
        ValueError: If it is not ``size x size`` with stride ``size``, without
            padding and dilation, ``size`` a divisor of ``side``.
    """
    size = conv.kernel_size[0]
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    if geometry != ((size, ) * 2, (size, ) * 2, (0, 0),
                    (1, 1)) or side % size or conv.groups > 1:
        raise ValueError(
            'expected a convolution whose kernel equals its stride and '
            f'divides the {side} tokens along the side of a mask unit, '
            f'without padding, for a masked forward, got {conv}')


def conv_in_units(conv: nn.Conv2d, x_BKTC: Tensor) -> Tensor:
    """A convolution whose kernel equals its stride, as a matrix product.

    Args:
        conv (nn.Conv2d): One that passes :func:`check_in_units`.
        x_BKTC (Tensor): Unit-major tokens.

    Returns:
        Tensor: Shape (B, K, T / size**2, out_channels).
    """
    size = conv.kernel_size[0]
    B, K, T, C = x_BKTC.shape
    side = int(T**0.5) // size
    x = x_BKTC.reshape(B, K, side, size, side, size, C)
    x = x.transpose(3, 4).reshape(B, K, side * side, size * size * C)
    # The tokens' channels stay together, the weight's follow them.
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(x, weight, conv.bias)


def visible_reduced_attention(attn: GlobalSubsampledAttention,
                              x_BKTC: Tensor) -> Tensor:
    """Attention of all visible tokens of an image to its reduced ones.

    Args:
        attn (GlobalSubsampledAttention): MMPretrain's, used by Twins and
            PVT v2.
        x_BKTC (Tensor): Unit-major tokens.

    Returns:
        Tensor: Shape (B, K, T, C).
    """
    B, C = len(x_BKTC), x_BKTC.shape[-1]
    heads = (attn.num_heads, attn.head_dims)
    reduced = x_BKTC
    if attn.sr_ratio > 1:
        reduced = attn.norm(conv_in_units(attn.sr, x_BKTC))
    q = attn.q(x_BKTC).view(B, -1, *heads).transpose(1, 2)
    k, v = attn.kv(reduced).view(B, -1, 2, *heads).transpose(1, 3).unbind(2)
    out = F.scaled_dot_product_attention(
        q, k, v, dropout_p=attn.attn_drop if attn.training else 0.)
    out = attn.proj(out.transpose(1, 2).reshape(x_BKTC.shape[:-1] + (C, )))
    return attn.out_drop(attn.proj_drop(out))
