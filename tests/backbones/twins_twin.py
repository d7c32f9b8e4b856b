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
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dense import blank, conv, enlarge, layer_norm, linear, visible_units
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
            for j, block in enumerate(blocks):
                x = self.block(x, block, mask)
                if j == 0:
                    x = x + self.position_encoding(
                        x, twins.position_encodings[i].proj, mask)
            x = layer_norm(x, getattr(twins, f'norm_after_stage{i}'))
            outs.append(visible_units(x, mask))
        return outs

    def block(self, x: Tensor, block: nn.Module, mask: Tensor) -> Tensor:
        normed = layer_norm(x, block.norm1)
        # Where the rate is not 0, the parent drops a branch's output twice,
        # except the output of local attention.
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
        out = linear(F.gelu(linear(out, first)), second)
        return x + drop_again(self.drop(out))

    def position_encoding(self, x: Tensor, proj: nn.Conv2d,
                          mask: Tensor) -> Tensor:
        """The convolution without its identity, which the caller adds."""
        return conv(blank(x, mask), proj, groups=x.shape[-1])

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
        qkv = linear(x.flatten(1, 2), attn.qkv)
        out = masked_attention(*qkv.chunk(3, -1), attn.num_heads, attn.scale,
                               blocked)
        return linear(out, attn.proj).view(batch, height, width, channels)

    def global_attention(self, x: Tensor, attn: nn.Module,
                         mask: Tensor) -> Tensor:
        """To sub-sampled tokens, all of them visible or masked as a whole."""
        batch, height, width, channels = x.shape
        reduced = x
        if attn.sr_ratio > 1:
            reduced = layer_norm(conv(x, attn.sr), attn.norm)
        blocked = self.blocked_keys(mask, *reduced.shape[1:3])
        key, value = linear(reduced.flatten(1, 2), attn.kv).chunk(2, -1)
        query = linear(x.flatten(1, 2), attn.q)
        out = masked_attention(query, key, value, attn.num_heads,
                               attn.head_dims**-0.5,
                               blocked.expand(-1, height * width, -1))
        return linear(out, attn.proj).view(batch, height, width, channels)

    def blocked_keys(self, mask: Tensor, height: int, width: int) -> Tensor:
        """Bool (B, 1, H * W) for the map of keys."""
        return enlarge(mask, height, width).flatten(1)[:, None]
