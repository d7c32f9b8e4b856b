# Copyright (c) greenmim authors. All rights reserved.
"""A slow, obviously right ConvNeXt that masks.

It shares no line with the package: every token of the map is computed in
raster order. Masked tokens are zero at the input of every depthwise
convolution, and before the statistics of global response normalization.
"""
from typing import List

import torch
from torch import Tensor, nn

from .dense import blank, conv, layer_norm, visible_units
from .family import Twin


class DenseConvNeXtTwin(Twin):
    """Dense ConvNeXt that masks, driven by another model's parameters.

    The model is an ``mmpretrain.ConvNeXt`` or a subclass. Maps are
    (B, H, W, C), masks bool (B, Gh, Gw) with True = masked.
    """

    def stages(self, images: Tensor, mask: Tensor) -> List[Tensor]:
        """All stages, each (B, K, u*u, C), normed where a norm exists."""
        net = self.model
        mask = mask.expand(len(images), *mask.shape[1:])
        x = images.permute(0, 2, 3, 1)
        outs = []
        for i, blocks in enumerate(net.stages):
            first, second = net.downsample_layers[i]
            if i:
                x = conv(layer_norm(x, first), second)
            else:
                x = layer_norm(conv(x, first), second)
            for block in blocks:
                branch = self.branch(x, block, mask)
                if not isinstance(block.drop_path, nn.Identity):
                    branch = self.drop(branch)
                x = x + branch
            norm = getattr(net, f'norm{i}', None)
            outs.append(
                visible_units(
                    x if norm is None else layer_norm(x, norm), mask))
        return outs

    def branch(self, x: Tensor, block: nn.Module, mask: Tensor) -> Tensor:
        """The residual branch of a block."""
        x = self.depthwise(x, block.depthwise_conv, mask)
        x = layer_norm(x, block.norm)
        x = block.act(self.pointwise(x, block.pointwise_conv1))
        if block.grn is not None:
            x = self.response_norm(x, block.grn, mask)
        x = self.pointwise(x, block.pointwise_conv2)
        return x if block.gamma is None else x * block.gamma

    def depthwise(self, x: Tensor, layer: nn.Conv2d, mask: Tensor) -> Tensor:
        return conv(blank(x, mask), layer, groups=layer.groups)

    def response_norm(self, x: Tensor, grn: nn.Module, mask: Tensor) -> Tensor:
        """ConvNeXt V2, section 3.3, of an image's visible tokens."""
        norm = blank(x, mask).square().sum((1, 2), keepdim=True).sqrt()
        x_hat = x * norm / (norm.mean(3, keepdim=True) + grn.eps)
        return grn.gamma * x_hat + grn.beta + x

    @staticmethod
    def pointwise(x: Tensor, layer: nn.Module) -> Tensor:
        weight = layer.weight.view(layer.weight.shape[:2])
        return torch.einsum('bhwc,oc->bhwo', x, weight) + layer.bias
