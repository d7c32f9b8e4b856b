# Copyright (c) greenmim authors. All rights reserved.
"""A slow, obviously right Twins that masks.

It shares no line with the package: every token of the map is computed in
raster order; the position encoding reads a map whose masked positions are
zero; and attention is one softmax over all tokens (or all sub-sampled
tokens) of the map in which a key counts if it is visible and, in locally
grouped attention, lies in the query's window.

Shapes: B images, M masks (1 or B), H*W tokens of a stage's map, C channels,
N heads, K visible units with u*u tokens each.
"""
from typing import Callable, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .family import Twin


def masked_attention(query: Tensor, key: Tensor, value: Tensor, heads: int,
                     scale: float, blocked: Tensor) -> Tensor:
    """Softmax attention of (B, Q, C) to (B, P, C), blocked (B, Q, P).

    PyTorch's function, which the dense models use as well: what it costs in
    float32 (its gradients of queries cancel) is part of their error.
    """
    batch, num, channels = query.shape
    query, key, value = (
        x.reshape(batch, -1, heads, channels // heads).transpose(1, 2)
        for x in (query, key, value))
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=~blocked[:, None], scale=scale)
    return out.transpose(1, 2).reshape(batch, num, channels)


def layer_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Over the last dimension."""
    if isinstance(norm, nn.Identity):
        return x
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def conv(x: Tensor, layer: nn.Conv2d, groups: int = 1) -> Tensor:
    """A convolution of a map (B, H, W, C)."""
    x = F.conv2d(
        x.permute(0, 3, 1, 2),
        layer.weight,
        layer.bias,
        stride=layer.stride,
        padding=layer.padding,
        groups=groups)
    return x.permute(0, 2, 3, 1)


def conv_by_unit(x: Tensor, layer: nn.Conv2d, grid: Tuple[int, int],
                 edit: Callable[[Tensor], Tensor]) -> Tensor:
    """A depthwise 3x3 convolution of a map (B, H, W, C), unit by unit.

    ``edit`` takes the units with their halo, (B, C, Gh, Gw, u + 2, u + 2).
    """
    batch, height, width, channels = x.shape
    side = height // grid[0]
    x = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1))
    x = edit(x.unfold(2, side + 2, side).unfold(3, side + 2, side))
    x = x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    x = F.conv2d(x, layer.weight, layer.bias, groups=channels)
    x = x.view(batch, *grid, channels, side, side)
    return x.permute(0, 1, 4, 2, 5, 3).reshape(batch, height, width, channels)


def enlarge(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask of units (B, Gh, Gw) on a map, (B, H, W)."""
    rows, cols = height // mask.shape[1], width // mask.shape[2]
    return mask.repeat_interleave(rows, 1).repeat_interleave(cols, 2)


def visible_units(x: Tensor, mask: Tensor) -> Tensor:
    """The visible units of a map (B, H, W, C), as (B, K, u*u, C)."""
    batch, height, width, channels = x.shape
    side = height // mask.shape[1]
    images = []
    for b in range(batch):
        units = [
            x[b, gy * side:(gy + 1) * side,
              gx * side:(gx + 1) * side].reshape(side * side, channels)
            for gy in range(mask.shape[1]) for gx in range(mask.shape[2])
            if not mask[b, gy, gx]
        ]
        images.append(torch.stack(units))
    return torch.stack(images)


class DenseTwinsTwin(Twin):
    """Dense Twins that masks, driven by another model's parameters.

    The model is an ``mmpretrain.SVT`` or ``PCPVT``, or a subclass. Only its
    parameters and hyper-parameters are read.
    """

    def stages(self, images: Tensor, mask: Tensor) -> List[Tensor]:
        """All stages, each (B, K, u*u, C).

        Args:
            images: (B, channels, height, width).
            mask: Bool (M, Gh, Gw), True = masked.
        """
        twins = self.model
        mask = mask.expand(len(images), *mask.shape[1:])
        x = images.permute(0, 2, 3, 1)
        outs = []
        for i, blocks in enumerate(twins.stages):
            x = conv(x, twins.patch_embeds[i].projection)
            x = layer_norm(x, twins.patch_embeds[i].norm)
            masked = enlarge(mask, *x.shape[1:3])
            for j, block in enumerate(blocks):
                x = self.block(x, block, mask)
                if j == 0:
                    x = x + self.position_encoding(
                        x, twins.position_encodings[i].proj, masked)
            x = layer_norm(x, getattr(twins, f'norm_after_stage{i}'))
            outs.append(visible_units(x, mask))
        return outs

    def block(self, x: Tensor, block: nn.Module, mask: Tensor) -> Tensor:
        normed = layer_norm(x, block.norm1)
        # Where the rate is not 0, the parent drops a branch's output twice,
        # that of local attention excepted.
        drop_again = self.drop
        if isinstance(block.drop_path, nn.Identity):
            drop_again = nn.Identity()
        if hasattr(block.attn, 'window_size'):
            out = self.local_attention(normed, block.attn, mask)
        else:
            out = self.drop(self.global_attention(normed, block.attn, mask))
        x = x + drop_again(out)
        first, second = block.ffn.layers[0][0], block.ffn.layers[1]
        out = layer_norm(x, block.norm2)
        out = F.gelu(F.linear(out, first.weight, first.bias))
        out = F.linear(out, second.weight, second.bias)
        return x + drop_again(self.drop(out))

    def position_encoding(self, x: Tensor, proj: nn.Conv2d,
                          masked: Tensor) -> Tensor:
        """The convolution alone; its identity stands at the call."""
        return conv(
            x.masked_fill(masked[..., None], 0.), proj, groups=x.shape[-1])

    def local_attention(self, x: Tensor, attn: nn.Module,
                        mask: Tensor) -> Tensor:
        """Within windows; there is no padding in them."""
        batch, height, width, channels = x.shape
        size = attn.window_size
        y, x_pos = torch.arange(height), torch.arange(width)
        window = (y // size)[:, None] * width + (x_pos // size)[None]
        window = window.flatten()
        blocked = enlarge(mask, height, width).flatten(1)[:, None]
        blocked = blocked | (window[:, None] != window[None])
        # a masked query sees only itself, so that no row is empty; nothing
        # reads what it computes
        blocked = blocked & ~torch.eye(height * width, dtype=torch.bool)
        qkv = F.linear(x.flatten(1, 2), attn.qkv.weight, attn.qkv.bias)
        out = masked_attention(*qkv.chunk(3, -1), attn.num_heads, attn.scale,
                               blocked)
        out = F.linear(out, attn.proj.weight, attn.proj.bias)
        return out.view(batch, height, width, channels)

    def global_attention(self, x: Tensor, attn: nn.Module,
                         mask: Tensor) -> Tensor:
        """To sub-sampled tokens, all of them visible or masked as a whole."""
        batch, height, width, channels = x.shape
        reduced = x
        if attn.sr_ratio > 1:
            reduced = layer_norm(conv(x, attn.sr), attn.norm)
        blocked = self.blocked_keys(mask, *reduced.shape[1:3])
        key, value = F.linear(
            reduced.flatten(1, 2), attn.kv.weight, attn.kv.bias).chunk(2, -1)
        query = F.linear(x.flatten(1, 2), attn.q.weight, attn.q.bias)
        out = masked_attention(query, key, value, attn.num_heads,
                               attn.head_dims**-0.5,
                               blocked.expand(-1, height * width, -1))
        out = F.linear(out, attn.proj.weight, attn.proj.bias)
        return out.view(batch, height, width, channels)

    def blocked_keys(self, mask: Tensor, height: int, width: int) -> Tensor:
        """Bool (B, 1, H * W) for the map of keys."""
        return enlarge(mask, height, width).flatten(1)[:, None]
