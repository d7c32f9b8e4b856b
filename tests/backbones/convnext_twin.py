# Copyright (c) greenmim authors. All rights reserved.
"""A slow, obviously right ConvNeXt that masks.

It shares no line with the package: every token of the map is computed in
raster order. Masked tokens are zero at the input of every depthwise
convolution, and before the statistics of global response normalization.
"""
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
                x = self.conv(self.norm(x, first), second)
            else:
                x = self.norm(self.conv(x, first), second)
            for block in blocks:
                branch = self.branch(x, block, mask)
                if not isinstance(block.drop_path, nn.Identity):
                    branch = self.drop(branch)
                x = x + branch
            norm = getattr(net, f'norm{i}', None)
            outs.append(
                self.units(x if norm is None else self.norm(x, norm), mask))
        return outs

    def branch(self, x: Tensor, block: nn.Module, mask: Tensor) -> Tensor:
        """The residual branch of a block."""
        x = self.depthwise(x, block.depthwise_conv, mask)
        x = self.norm(x, block.norm)
        x = block.act(self.pointwise(x, block.pointwise_conv1))
        if block.grn is not None:
            x = self.response_norm(x, block.grn, mask)
        x = self.pointwise(x, block.pointwise_conv2)
        return x if block.gamma is None else x * block.gamma

    def depthwise(self, x: Tensor, layer: nn.Conv2d, mask: Tensor) -> Tensor:
        return self.conv(self.blank(x, mask), layer)

    def response_norm(self, x: Tensor, grn: nn.Module, mask: Tensor) -> Tensor:
        """ConvNeXt V2, section 3.3, of an image's visible tokens."""
        norm = self.blank(x, mask).square().sum((1, 2), keepdim=True).sqrt()
        x_hat = x * norm / (norm.mean(3, keepdim=True) + grn.eps)
        return grn.gamma * x_hat + grn.beta + x

    @staticmethod
    def blank(x: Tensor, mask: Tensor) -> Tensor:
        """Masked tokens are zero."""
        side = x.shape[1] // mask.shape[1]
        hidden = mask.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return torch.where(hidden[..., None], torch.zeros_like(x), x)

    @staticmethod
    def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
        x = F.conv2d(
            x.permute(0, 3, 1, 2),
            layer.weight,
            layer.bias,
            stride=layer.stride,
            padding=layer.padding,
            groups=layer.groups)
        return x.permute(0, 2, 3, 1)

    @staticmethod
    def pointwise(x: Tensor, layer: nn.Module) -> Tensor:
        weight = layer.weight.view(layer.weight.shape[:2])
        return torch.einsum('bhwc,oc->bhwo', x, weight) + layer.bias

    @staticmethod
    def norm(x: Tensor, norm: nn.Module) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)

    @staticmethod
    def units(x: Tensor, mask: Tensor) -> Tensor:
        """The visible units of a map, (B, K, u*u, C)."""
        side = x.shape[1] // mask.shape[1]
        images = []
        for of_image, hidden in zip(x, mask):
            images.append(
                torch.stack([
                    of_image[row * side:(row + 1) * side,
                             col * side:(col + 1) * side].flatten(0, 1)
                    for row, col in (~hidden).nonzero().tolist()
                ]))
        return torch.stack(images)
