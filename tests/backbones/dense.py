# Copyright (c) greenmim authors. All rights reserved.
"""Layers of the dense twins, on all tokens of a map in raster order."""
from typing import Callable, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(x: Tensor, layer: nn.Module) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def layer_norm(x: Tensor, norm: Optional[nn.Module]) -> Tensor:
    """Over the last dimension."""
    if norm is None or isinstance(norm, nn.Identity):
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
    """A depthwise convolution of a map (B, H, W, C), unit by unit.

    ``edit`` takes the units with a halo of h tokens,
    (B, C, Gh, Gw, u + 2h, u + 2h).
    """
    batch, height, width, channels = x.shape
    side, halo = height // grid[0], layer.padding[0]
    x = F.pad(x.permute(0, 3, 1, 2), (halo, ) * 4)
    length = side + 2 * halo
    x = edit(x.unfold(2, length, side).unfold(3, length, side))
    x = x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    x = F.conv2d(x, layer.weight, layer.bias, groups=channels)
    x = x.view(batch, *grid, channels, side, side)
    return x.permute(0, 1, 4, 2, 5, 3).reshape(batch, height, width, channels)


def enlarge(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask of units (B, Gh, Gw) on a map, (B, H, W)."""
    rows, cols = height // mask.shape[1], width // mask.shape[2]
    return mask.repeat_interleave(rows, 1).repeat_interleave(cols, 2)


def blank(x: Tensor, mask: Tensor) -> Tensor:
    """Masked positions of a map (B, H, W, C) set to zero."""
    return x.masked_fill(enlarge(mask, *x.shape[1:3])[..., None], 0.)


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
