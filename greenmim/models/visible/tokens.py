# Copyright (c) greenmim authors. All rights reserved.
"""Dense layers on visible tokens.

They run the modules of the dense model, so that parameters and names stay
what they are. ``x_BKTC`` are unit-major tokens; the letters are defined in
:mod:`greenmim.ops`.
"""
from typing import Any, Sequence

from mmcv.cnn.bricks.transformer import FFN, PatchEmbed, PatchMerging
from mmpretrain.models.backbones.twins import GlobalSubsampledAttention
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import Halo, depthwise_conv, gather_units, merge_tokens
from greenmim.ops.mask_unit import Grid


def linear_tokens(layer: Any, x: Tensor) -> Tensor:
    """A linear layer, or a convolution whose kernel equals its stride.

    Args:
        layer (nn.Linear | nn.Conv2d): The dense layer.
        x (Tensor): Shape (..., C * kernel**2), ordered (channel, row, column)
            like the weight of a convolution.
    """
    return F.linear(x, layer.weight.flatten(1), layer.bias)


def tokens_to_map(x: Tensor, hw_shape: Sequence[int]) -> Tensor:
    """All tokens of a map (B, H * W, C) as the map (B, C, H, W).

    Not by ``unflatten``, which ONNX has for constant sizes alone.

    Args:
        x (Tensor): Shape (B, H * W, C), row-major.
        hw_shape (tuple): H and W.
    """
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *hw_shape)


def visible_patch_embed(patch_embed: PatchEmbed, patches: Tensor) -> Tensor:
    """Embed patches and norm them.

    Args:
        patch_embed (PatchEmbed): The dense layer, stride = kernel.
        patches (Tensor): Shape (..., C * kernel**2), pixels ordered
            (channel, row, column).

    Returns:
        Tensor: Shape (..., embed_dims).
    """
    x = linear_tokens(patch_embed.projection, patches)
    return x if patch_embed.norm is None else patch_embed.norm(x)


def visible_patch_merging(merging: PatchMerging, x_BKTC: Tensor) -> Tensor:
    """Merge 2x2 tokens inside units.

    Args:
        merging (PatchMerging): The dense layer of MMCV, or of MMPretrain,
            which applies the norm after the projection if it has
            ``use_post_norm=True``.
        x_BKTC (Tensor): The tokens.

    Returns:
        Tensor: Shape (B, K, T / 4, out_channels).
    """
    x = merge_tokens(x_BKTC)
    if merging.norm is None:
        return merging.reduction(x)
    if getattr(merging, 'use_post_norm', False):
        return merging.norm(merging.reduction(x))
    return merging.reduction(merging.norm(x))


def check_in_units(conv: Any, side: int) -> None:
    """Refuse a convolution that reaches from one mask unit into another.

    Args:
        conv (nn.Conv2d | nn.Unfold): The convolution, or the sampler of a
            patch merging.
        side (int): Tokens (or pixels) along a unit's side.

    Raises:
        ValueError: If it is not ``size x size`` with stride ``size``, without
            padding and dilation, ``size`` a divisor of ``side``.
    """
    size = conv.kernel_size[0]
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    if geometry != ((size, ) * 2, (size, ) * 2, (0, 0),
                    (1, 1)) or side % size or getattr(conv, 'groups', 1) > 1:
        raise ValueError(
            'expected a convolution or merging whose kernel equals its stride '
            f'and divides the {side} tokens along the side of a mask unit, '
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
    # x has (row, column, channel); permuting it would copy more.
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(x, weight, conv.bias)


def depthwise_tokens(conv: nn.Conv2d, x_BKTC: Tensor, halo: Halo) -> Tensor:
    """A depthwise convolution of stride 1.

    Args:
        conv (nn.Conv2d): The dense layer.
        x_BKTC (Tensor): Unit-major tokens.
        halo (Halo): The neighbours of units that the kernel reads.

    Returns:
        Tensor: Shape (B, K, T, C).
    """
    return depthwise_conv(x_BKTC, halo, conv.weight, conv.bias)


def ffn_tokens(ffn: FFN, x: Tensor) -> Tensor:
    """The residual branch of a feed-forward network, before stochastic depth.

    Args:
        ffn (FFN): MMCV's.
        x (Tensor): Shape (..., C).
    """
    return ffn.gamma2(ffn.layers(x))


def norm_tokens(norm: nn.Module, x_BKTC: Tensor) -> Tensor:
    """A batch norm of visible tokens, by their statistics in training.

    Args:
        norm (nn.Module): The dense batch norm.
        x_BKTC (Tensor): Unit-major tokens.

    Returns:
        Tensor: Shape (B, K, T, C).

    Raises:
        ValueError: If statistics would be computed from a single token.
    """
    x = x_BKTC.reshape(-1, x_BKTC.shape[-1], 1, 1)
    if len(x) == 1 and norm.training and isinstance(norm, nn.BatchNorm2d):
        raise ValueError(
            'expected more than one visible token in a batch, as batch norms '
            'take their statistics of them in training, got one; enlarge '
            'batch or images, or lower the mask ratio')
    return norm(x).view(x_BKTC.shape)


def visible_positions(embed: Tensor, units: Tensor, grid: Grid) -> Tensor:
    """Select the position embeddings of the visible tokens.

    Args:
        embed (Tensor): Shape (1, H * W, C), of the map in row-major order.
        units (Tensor): Int64 (M, K), the visible units.
        grid (tuple[int, int]): The unit grid (Gh, Gw).

    Returns:
        Tensor: Shape (M, K, T, C).
    """
    num_units = grid[0] * grid[1]
    side = round((embed.shape[1] / num_units)**0.5)
    # (Gh, y, Gw, x, C) -> (Gh, Gw, y, x, C)
    embed = embed.view(grid[0], side, grid[1], side, -1).transpose(1, 2)
    embed = embed.reshape(1, num_units, side * side, -1)
    return gather_units(embed.expand(len(units), -1, -1, -1), units)


def visible_reduced_attention(attn: GlobalSubsampledAttention,
                              x_BKTC: Tensor) -> Tensor:
    """Attention to keys and values that a convolution reduces inside units.

    Its kernel equals its stride and divides the side of a unit, so that a
    reduced token covers either visible tokens or masked ones. All visible
    tokens of an image attend to all its reduced tokens.

    Args:
        attn (GlobalSubsampledAttention): MMPretrain's, used by Twins and
            PVT v2.
        x_BKTC (Tensor): Unit-major tokens.

    Returns:
        Tensor: Shape (B, K, T, C), before stochastic depth (``out_drop``).
    """
    B, C = len(x_BKTC), x_BKTC.shape[-1]
    heads = (attn.num_heads, attn.head_dims)
    reduced = x_BKTC
    if attn.sr_ratio > 1:
        reduced = attn.norm(conv_in_units(attn.sr, x_BKTC))
    q = attn.q(x_BKTC).view(B, -1, *heads).transpose(1, 2)
    # (B, keys, 2, h, d) -> (B, h, 2, keys, d)
    k, v = attn.kv(reduced).view(B, -1, 2, *heads).transpose(1, 3).unbind(2)
    out = F.scaled_dot_product_attention(
        q, k, v, dropout_p=attn.attn_drop if attn.training else 0.)
    out = attn.proj(out.transpose(1, 2).reshape(x_BKTC.shape[:-1] + (C, )))
    return attn.proj_drop(out)
