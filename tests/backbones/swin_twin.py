# Copyright (c) greenmim authors. All rights reserved.
"""A slow, obviously right Swin Transformer that masks keys.

It shares no line with the package: every token of the map is computed in
raster order, and attention is one softmax over all H*W tokens of the map in
which a key counts if it lies in the query's window, is a real token (there is
no padding to leave out, since only real tokens exist here) and is visible.

Shapes: B images, M masks (1 or B), H*W tokens of a stage's map, C channels,
N heads, K visible units with u*u tokens each.
"""
from typing import List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .dense import conv, enlarge, layer_norm, linear, visible_units
from .family import Twin


def window_ids(height: int, width: int, window: int, shift: int) -> Tensor:
    """Number of the window that holds each token, shape (H, W).

    With offset o = (w - s) mod w, token (y, x) lies in window
    (floor((y + o) / w), floor((x + o) / w)).
    """
    ids = torch.empty(height, width, dtype=torch.long)
    offset = (window - shift) % window
    for y in range(height):
        for x in range(width):
            window_y = (y + offset) // window
            window_x = (x + offset) // window
            ids[y, x] = window_y * (width + window) + window_x
    return ids


def window_of_map(height: int, width: int, window: int, shift: int,
                  pad_small_map: bool) -> Tuple[int, int]:
    """Window and shift that act on a map of this size."""
    if min(height, width) <= window and not pad_small_map:
        return min(height, width), 0
    return window, shift


def attend(scores: Tensor, value: Tensor, attn, masked: Tensor) -> Tensor:
    """Softmax over the visible keys in the query's window, (B, H, W, C).

    Args:
        scores: Of all pairs of tokens, (B, N, H*W, H*W).
        value: (B, N, H*W, C / N).
        attn: The parent's attention, whose windows and projection are used.
        masked: Bool (B, H, W).
    """
    batch, height, width = masked.shape
    window, shift = window_of_map(height, width, attn.window_size,
                                  attn.shift_size, attn.pad_small_map)
    ids = window_ids(height, width, window, shift).flatten()
    allowed = (ids[:, None] == ids[None, :]) & ~masked.view(batch, 1, -1)
    # a masked query sees only itself, so that no row is empty; nothing
    # reads what it computes
    allowed = allowed | torch.eye(height * width, dtype=torch.bool)
    scores = scores.masked_fill(~allowed[:, None], float('-inf'))
    out = (scores.softmax(-1) @ value).transpose(1, 2)
    return linear(out.reshape(batch, height, width, -1), attn.w_msa.proj)


def merge_by_map(x: Tensor) -> Tensor:
    """OpenMMLab's order of the merged channels: c * 4 + (2 * dy + dx)."""
    squares = [x[:, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
    return torch.stack(squares, dim=-1).flatten(-2)


class DenseSwinTwin(Twin):
    """Dense Swin with masked keys, driven by another model's parameters.

    The model is an ``mmpretrain.SwinTransformer`` or a subclass. Only its
    parameters and hyper-parameters are read.
    """

    def stages(self, images: Tensor, mask: Tensor) -> List[Tensor]:
        """All stages, each (B, K, u*u, C), normed where a norm exists.

        Args:
            images: (B, channels, height, width).
            mask: Bool (M, Gh, Gw), True = masked.
        """
        swin = self.model
        mask = mask.expand(len(images), *mask.shape[1:])
        x = self._embed(images)
        outs = []
        for i, stage in enumerate(swin.stages):
            masked = enlarge(mask, *x.shape[1:3])
            for block in stage.blocks:
                x = x + self.drop(
                    self._attention(
                        layer_norm(x, block.norm1), block.attn, masked))
                x = x + self.drop(
                    self._mlp(layer_norm(x, block.norm2), block.ffn))
            outs.append(
                visible_units(
                    layer_norm(x, getattr(swin, f'norm{i}', None)), mask))
            if stage.downsample is not None:
                x = self._merge(x, stage.downsample)
        return outs

    def _embed(self, images: Tensor) -> Tensor:
        """All patches with their absolute positions, (B, H, W, C)."""
        swin = self.model
        x = conv(images.permute(0, 2, 3, 1), swin.patch_embed.projection)
        size = x.shape[1:3]
        x = layer_norm(x, swin.patch_embed.norm)
        if not swin.use_abs_pos_embed:
            return x
        position = swin.absolute_pos_embed
        position = position.reshape(1, *swin.patch_resolution, -1)
        if size != tuple(swin.patch_resolution):
            # interpolation is done in float32, as in the parent
            position = F.interpolate(
                position.permute(0, 3, 1, 2).float(),
                size,
                mode=swin.interpolate_mode,
                align_corners=False).permute(0, 2, 3, 1).to(x)
        return x + position

    @staticmethod
    def _mlp(x: Tensor, ffn) -> Tensor:
        first, second = ffn.layers[0][0], ffn.layers[1]
        return linear(F.gelu(linear(x, first)), second)

    @staticmethod
    def _attention(x: Tensor, attn, masked: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        num_tokens = height * width
        msa = attn.w_msa
        heads = msa.num_heads

        # relative position of query q and key k: table row
        # (y_q - y_k + w - 1) * (2w - 1) + (x_q - x_k + w - 1), where w is
        # the window that the table was made for
        table = msa.relative_position_bias_table
        w = msa.window_size[0]
        y = torch.arange(height).repeat_interleave(width)
        x_pos = torch.arange(width).repeat(height)
        dy = (y[:, None] - y[None, :] + w - 1).clamp(0, 2 * w - 2)
        dx = (x_pos[:, None] - x_pos[None, :] + w - 1).clamp(0, 2 * w - 2)
        bias = table[dy * (2 * w - 1) + dx].permute(2, 0, 1)

        qkv = linear(x, msa.qkv).view(batch, num_tokens, 3, heads,
                                      channels // heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * msa.scale + bias
        return attend(scores, value, attn, masked)

    def _merge(self, x: Tensor, merge) -> Tensor:
        return linear(layer_norm(merge_by_map(x), merge.norm), merge.reduction)
