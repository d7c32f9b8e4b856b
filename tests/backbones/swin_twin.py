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
        height = x.shape[1]

        outs = []
        for i, stage in enumerate(swin.stages):
            unit = height // mask.shape[1]
            masked = mask.repeat_interleave(
                unit, dim=1).repeat_interleave(
                    unit, dim=2)
            for block in stage.blocks:
                x = x + self.drop(
                    self._attention(
                        self._norm(x, block.norm1), block.attn, masked))
                x = x + self.drop(
                    self._mlp(self._norm(x, block.norm2), block.ffn))
            outs.append(
                self._visible_units(
                    self._norm(x, getattr(swin, f'norm{i}', None)), mask))
            if stage.downsample is not None:
                x = self._merge(x, stage.downsample)
                height = x.shape[1]
        return outs

    def _embed(self, images: Tensor) -> Tensor:
        """All patches with their absolute positions, (B, H, W, C)."""
        swin = self.model
        conv = swin.patch_embed.projection
        x = F.conv2d(images, conv.weight, conv.bias, stride=conv.stride)
        size = x.shape[-2:]
        x = self._norm(x.permute(0, 2, 3, 1), swin.patch_embed.norm)
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
    def _norm(x: Tensor, norm) -> Tensor:
        if norm is None or isinstance(norm, torch.nn.Identity):
            return x
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)

    @staticmethod
    def _mlp(x: Tensor, ffn) -> Tensor:
        first, second = ffn.layers[0][0], ffn.layers[1]
        x = F.gelu(F.linear(x, first.weight, first.bias))
        return F.linear(x, second.weight, second.bias)

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

        window, shift = window_of_map(height, width, attn.window_size,
                                      attn.shift_size, attn.pad_small_map)
        ids = window_ids(height, width, window, shift).flatten()
        allowed = (ids[:, None]
                   == ids[None, :]) & ~masked.view(batch, 1, num_tokens)
        # a masked query sees only itself, so that no row is empty; nothing
        # reads what it computes
        allowed = allowed | torch.eye(num_tokens, dtype=torch.bool)

        qkv = F.linear(x, msa.qkv.weight, msa.qkv.bias)
        qkv = qkv.view(batch, num_tokens, 3, heads, channels // heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * msa.scale + bias
        scores = scores.masked_fill(~allowed[:, None], float('-inf'))
        out = scores.softmax(-1) @ value
        out = out.transpose(1, 2).reshape(batch, height, width, channels)
        return F.linear(out, msa.proj.weight, msa.proj.bias)

    def _merge(self, x: Tensor, merge) -> Tensor:
        # OpenMMLab's order of the merged channels: c * 4 + (2 * dy + dx)
        x = torch.stack([
            x[:, 0::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 0::2], x[:, 1::2,
                                                                    1::2]
        ],
                        dim=-1).flatten(-2)
        x = self._norm(x, merge.norm)
        return F.linear(x, merge.reduction.weight, merge.reduction.bias)

    @staticmethod
    def _visible_units(x: Tensor, mask: Tensor) -> Tensor:
        """Cut a (B, H, W, C) map into units and keep the visible ones."""
        batch, height, width, channels = x.shape
        grid_h, grid_w = mask.shape[1:]
        unit = height // grid_h
        images = []
        for b in range(batch):
            units = []
            for gy in range(grid_h):
                for gx in range(grid_w):
                    if not mask[b, gy, gx]:
                        square = x[b, gy * unit:(gy + 1) * unit,
                                   gx * unit:(gx + 1) * unit]
                        units.append(square.reshape(unit * unit, channels))
            images.append(torch.stack(units))
        return torch.stack(images)
