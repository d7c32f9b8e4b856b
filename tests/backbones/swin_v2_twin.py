# Copyright (c) greenmim authors. All rights reserved.
"""A slow, obviously right Swin Transformer V2 that masks keys.

Windows, units and absolute positions are as in V1's twin; the attention, the
order of norms and the place of the patch merging are V2's.
"""
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor

from .dense import enlarge, layer_norm, linear, visible_units
from .swin_twin import DenseSwinTwin, attend, merge_by_map


class DenseSwinV2Twin(DenseSwinTwin):
    """Dense Swin V2 with masked keys, driven by another model's parameters.

    The model is an ``mmpretrain.SwinTransformerV2`` or a subclass.
    """

    def stages(self, images: Tensor, mask: Tensor) -> List[Tensor]:
        swin = self.model
        mask = mask.expand(len(images), *mask.shape[1:])
        x = self._embed(images)
        outs = []
        for i, stage in enumerate(swin.stages):
            if stage.downsample is not None:
                x = self._merge(x, stage.downsample)
            masked = enlarge(mask, *x.shape[1:3])
            for block in stage.blocks:
                x = self._block(x, block, masked)
            outs.append(
                visible_units(
                    layer_norm(x, getattr(swin, f'norm{i}', None)), mask))
        return outs

    def _block(self, x: Tensor, block, masked: Tensor) -> Tensor:
        attended = self._attention(x, block.attn, masked)
        x = x + layer_norm(self.drop(attended), block.norm1)
        x = x + layer_norm(self.drop(self._mlp(x, block.ffn)), block.norm2)
        return layer_norm(x, block.norm3) if block.extra_norm else x

    @staticmethod
    def _attention(x: Tensor, attn, masked: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        num_tokens = height * width
        msa = attn.w_msa
        heads = msa.num_heads
        y = torch.arange(height).repeat_interleave(width)
        x_pos = torch.arange(width).repeat(height)
        bias = offset_bias(msa, y[:, None] - y, x_pos[:, None] - x_pos)

        qkv = F.linear(x, msa.qkv.weight).view(batch, num_tokens, 3, channels)
        query, key, value = qkv.unbind(2)
        if msa.q_bias is not None:  # there is no bias of the keys
            query, value = query + msa.q_bias, value + msa.v_bias
        query, key, value = (
            part.view(batch, num_tokens, heads, -1).transpose(1, 2)
            for part in (query, key, value))
        scale = msa.logit_scale.exp().clamp(max=100.)
        query, key = (
            part / part.square().sum(-1, keepdim=True).sqrt()
            for part in (query, key))
        scores = query @ key.transpose(-2, -1) * scale + bias
        return attend(scores, value, attn, masked)

    def _merge(self, x: Tensor, merge) -> Tensor:
        return layer_norm(linear(merge_by_map(x), merge.reduction), merge.norm)


def offset_bias(msa, dy: Tensor, dx: Tensor) -> Tensor:
    """Bias of every pair of tokens, (heads, T, T), for their offsets."""
    # The parent's log-spaced offsets, which it makes in float32. Offsets of
    # tokens in different windows may exceed them: nothing reads those.
    last = msa.window_size[0] - 1
    dy, dx = (d.clamp(-last, last) + last for d in (dy, dx))
    first, _, second = msa.cpb_mlp
    hidden = F.linear(msa.relative_coords_table[0], first.weight, first.bias)
    table = F.linear(hidden.relu(), second.weight)
    return 16 * table[dy, dx].sigmoid().permute(2, 0, 1)
