# Copyright (c) greenmim authors. All rights reserved.
"""A slow, obviously right PVT v2 that masks.

Every pixel and token of the map is computed; masked ones are zero at the
input of every convolution that reaches beyond a unit, and no key of
attention.
"""
from typing import List

import torch.nn.functional as F
from torch import Tensor, nn

from .dense import blank, conv, layer_norm, linear, visible_units
from .twins_twin import DenseTwinsTwin


class DensePVTv2Twin(DenseTwinsTwin):
    """Dense PVT v2 that masks; see the twin of Twins for its attention."""

    def stages(self, images: Tensor, mask: Tensor) -> List[Tensor]:
        """All stages, each (B, K, u*u, C).

        Args:
            images: (B, channels, height, width).
            mask: Bool (M, Gh, Gw), True = masked.
        """
        pvt = self.model
        mask = mask.expand(len(images), *mask.shape[1:])
        x = images.permute(0, 2, 3, 1)
        outs = []
        for i, blocks in enumerate(pvt.stages):
            x = self.embed(x, pvt.patch_embeds[i], mask)
            for block in blocks:
                x = x + self.drop(
                    self.global_attention(
                        layer_norm(x, block.norm1), block.attn, mask))
                x = x + self.drop(
                    self.feed_forward(
                        layer_norm(x, block.norm2), block.ffn, mask))
            x = layer_norm(x, getattr(pvt, f'norm{i}'))
            outs.append(visible_units(x, mask))
        return outs

    def embed(self, x: Tensor, embed: nn.Module, mask: Tensor) -> Tensor:
        x = conv(blank(x, mask), embed.projection)
        return layer_norm(x, embed.norm)

    def feed_forward(self, x: Tensor, ffn: nn.Module, mask: Tensor) -> Tensor:
        x = self.depthwise(linear(x, ffn.fc1), ffn.dwconv, mask)
        return linear(F.gelu(x), ffn.fc2)

    def depthwise(self, x: Tensor, layer: nn.Conv2d, mask: Tensor) -> Tensor:
        return conv(blank(x, mask), layer, groups=x.shape[-1])
