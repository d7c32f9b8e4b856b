# Copyright (c) greenmim authors. All rights reserved.
"""A slow, obviously right CMT that masks.

Every token of the map is computed; masked ones are zero at the input of every
3x3 convolution, no key of attention, and no part of a batch norm's
statistics.
"""
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dense import blank, conv, enlarge, layer_norm, visible_units
from .family import Twin


class DenseCMTTwin(Twin):
    """Dense CMT that masks, driven by another model's parameters."""

    def stages(self, images: Tensor, mask: Tensor) -> List[Tensor]:
        """All stages, each (B, K, u*u, C).

        Args:
            images: (B, channels, height, width).
            mask: Bool (M, Gh, Gw), True = masked.
        """
        cmt = self.model
        mask = mask.expand(len(images), *mask.shape[1:])
        x = images.permute(0, 2, 3, 1)
        for i in (0, 3, 6):
            x = F.gelu(conv(self.blank(x, mask), cmt.stem[i]))
            x = self.batch_norm(x, cmt.stem[i + 2], mask)
        outs = []
        for i, blocks in enumerate(cmt.stages):
            embed = cmt.patch_embeds[i]
            x = layer_norm(conv(x, embed.projection), embed.norm)
            bias = self.bias(cmt.position_biases[i], *x.shape[1:3])
            for block in blocks:
                x = x + self.depthwise(x, block.proj, mask)
                x = x + self.drop(
                    self.attention(
                        layer_norm(x, block.norm1), block.attn, bias, mask))
                x = x + self.drop(
                    self.feed_forward(
                        layer_norm(x, block.norm2), block.mlp, mask))
            norm = getattr(cmt, f'norm{i}', None)
            outs.append(
                visible_units(
                    x if norm is None else layer_norm(x, norm), mask))
        return outs

    def feed_forward(self, x: Tensor, mlp: nn.Module, mask: Tensor) -> Tensor:
        x = F.gelu(conv(x, mlp.conv1[0]))
        x = self.batch_norm(x, mlp.conv1[2], mask)
        x = F.gelu(self.depthwise(x, mlp.proj, mask) + x)
        x = self.batch_norm(x, mlp.proj_bn, mask)
        x = conv(x, mlp.conv2[0])
        return self.batch_norm(x, mlp.conv2[1], mask)

    def depthwise(self, x: Tensor, layer: nn.Conv2d, mask: Tensor) -> Tensor:
        return conv(self.blank(x, mask), layer, groups=x.shape[-1])

    def attention(self, x: Tensor, attn: nn.Module, bias: Tensor,
                  mask: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        keys = x
        if attn.sr_ratio > 1:
            keys = conv(x, attn.sr[0], groups=channels)
            keys = self.batch_norm(keys, attn.sr[1], mask)
        blocked = self.blocked_keys(mask, *keys.shape[1:3])
        outs = []
        for b in range(batch):
            heads = []
            size = channels // attn.num_heads
            for head in range(attn.num_heads):
                part = slice(head * size, (head + 1) * size)
                q, k, v = (F.linear(
                    y[b].flatten(0, 1), layer.weight[part],
                    None if layer.bias is None else layer.bias[part])
                           for y, layer in ((x, attn.q), (keys, attn.k),
                                            (keys, attn.v)))
                scores = q @ k.T * size**-0.5 + bias[head]
                scores = scores.masked_fill(blocked[b], float('-inf'))
                heads.append(scores.softmax(-1) @ v)
            outs.append(torch.cat(heads, -1))
        out = F.linear(torch.stack(outs), attn.proj.weight, attn.proj.bias)
        return out.view(batch, height, width, channels)

    def blocked_keys(self, mask: Tensor, height: int, width: int) -> Tensor:
        """Bool (B, 1, H * W) for the map of keys."""
        return enlarge(mask, height, width).flatten(1)[:, None]

    def bias(self, position: nn.Module, height: int, width: int) -> Tensor:
        """(heads, queries, keys), interpolated query by query, key by key."""
        bias, ratio = position.bias, position.sr_ratio
        rows, cols = position.hw_shape
        if (rows, cols) == (height, width):
            return bias

        def resize(maps, size):
            return F.interpolate(
                maps[None], size, mode='bicubic', align_corners=False)[0]

        keys = (height // ratio, width // ratio)
        bias = torch.stack([
            resize(bias[:, q].unflatten(1, (rows // ratio, cols // ratio)),
                   keys).flatten(1) for q in range(bias.shape[1])
        ], 1)
        return torch.stack([
            resize(bias[..., k].unflatten(1, (rows, cols)),
                   (height, width)).flatten(1) for k in range(bias.shape[2])
        ], 2)

    def batch_norm(self, x: Tensor, norm: nn.Module, mask: Tensor) -> Tensor:
        mean, var = norm.running_mean, norm.running_var
        if norm.training:
            seen = x[~enlarge(mask, *x.shape[1:3])]  # (tokens, C)
            mean, var = seen.mean(0), seen.var(0, unbiased=False)
        return (x - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias

    blank = staticmethod(blank)
