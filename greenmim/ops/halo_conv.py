# Copyright (c) greenmim authors. All rights reserved.
"""Convolutions that reach from one mask unit into others.

They convolve a map in which masked tokens are zero, for visible units only.
Every unit is gathered with a *halo*, the p tokens around it that a kernel of
padding p reads; tokens of masked units and outside the map are zero and never
read. These squares of ``side + 2 * p`` tokens a side are then convolved
without padding. No map of the whole image is made.

``x_BKTC`` are unit-major tokens (see :mod:`.mask_unit`) with ``T = side**2``;
pixels are tokens with ``side = unit_size``. The letters are defined in
:mod:`greenmim.ops`.

Measured for the 7x7 kernels of ConvNeXt-B (8 images of 224 px, ratio 0.75,
one thread of a CPU that did other work as well): the forward pass takes 1 to
3 ms in every stage. The gradient of the kernel dominates: with PyTorch's
depthwise convolution it takes 35, 30, 54 and 133 ms at sides 8, 4, 2 and 1;
with a product and a sum per tap, as here, 33, 10, 8 and 3 ms. Other devices
use PyTorch's: 49 taps would be 98 kernels of a GPU, each of which reads all
tokens. That was counted, not timed.
"""
from dataclasses import dataclass
from typing import Any, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from .mask_unit import VisibleLayout


@dataclass(frozen=True, eq=False)
class Halo:
    """Indices of the tokens of units and their halos, on a device.

    Args:
        index (Tensor): Int64 (M * K * outer_side**2,), tokens of a sequence;
            the index N means zero.
        num_tokens (int): Tokens of a sequence, N.
        side (int): Tokens along a unit's side.
        padding (int): Width of the halo, p.
    """
    index: Tensor
    num_tokens: int
    side: int
    padding: int

    @classmethod
    def from_layout(cls, layout: VisibleLayout, side: int, padding: int,
                    device: torch.device) -> 'Halo':
        """Make the index on the CPU and send it to the device.

        The convolutions of a stage share one halo. Their padding may exceed
        the side of a unit.
        """
        M, K = layout.units.shape
        height, width = layout.grid
        reach = -(-padding // side)  # in units
        rank = F.pad(
            layout.restore.view(M, height, width), (reach, ) * 4, value=K)
        near = torch.arange(2 * reach + 1)
        rows = (layout.units // width)[..., None, None] + near[:, None]
        cols = (layout.units % width)[..., None, None] + near
        mask = torch.arange(M)[:, None, None, None]
        units = rank[mask, rows, cols]  # (M, K, 2 * reach + 1, the same)

        place = torch.arange(-padding, side + padding)
        unit, at = place // side + reach, place % side
        units = units[:, :, unit][..., unit]
        tokens = (mask * K + units) * side**2 + at[:, None] * side + at
        num_tokens = M * K * side**2
        tokens = tokens.masked_fill(units == K, num_tokens)
        index = tokens.flatten().to(device, non_blocking=True)
        return cls(index, num_tokens, side, padding)

    @property
    def outer_side(self) -> int:
        """Tokens along the side of a unit and its halo."""
        return self.side + 2 * self.padding

    def gather(self, x_BKTC: Tensor) -> Tensor:
        """Gather every unit with its halo.

        Returns:
            Tensor: Shape (B * K, C, outer_side, outer_side), channels last in
            memory.

        Raises:
            ValueError: If the number of tokens is not the halo's.
        """
        B, K, T, C = x_BKTC.shape
        if T != self.side**2 or (B * K * T) % self.num_tokens:
            raise ValueError(
                f'expected tokens of units of {self.side} x {self.side}, '
                f'{self.num_tokens} in a sequence, got the shape '
                f'{tuple(x_BKTC.shape)}; make the halo from the layout of the '
                'images, with the side of the stage')
        x = x_BKTC.reshape(-1, self.num_tokens, C)
        x = torch.cat([x, x.new_zeros(len(x), 1, C)], dim=1)
        x = x.index_select(1, self.index)
        return x.view(B * K, self.outer_side, self.outer_side,
                      C).permute(0, 3, 1, 2)


class _DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution whose backward pass gathers too.

    The gradient of the tokens is the same convolution, applied to the
    gradient of the output with the flipped kernel. Masked tokens have no
    output, so their gradient is zero.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor],
                halo: Halo) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.halo = halo
        return _convolve(x, weight, bias, halo)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple:
        x, weight = ctx.saved_tensors
        halo = ctx.halo
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _convolve(grad, weight.flip(2, 3), None, halo)
        if ctx.needs_input_grad[1]:
            if x.device.type == 'cpu':
                grad_weight = kernel_gradient_by_taps(x, grad.to(weight.dtype),
                                                      halo)
                grad_weight = grad_weight.view(weight.shape)
            else:
                grad_weight = kernel_gradient_at_once(x, grad, weight, halo)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 1, 2), dtype=weight.dtype)
        return grad_x, grad_weight, grad_bias, None


def _convolve(x_BKTC: Tensor, weight: Tensor, bias: Optional[Tensor],
              halo: Halo) -> Tensor:
    """Convolve in the precision of the tokens, which autocast may lower."""
    weight = weight.to(x_BKTC.dtype)
    if bias is not None:
        bias = bias.to(x_BKTC.dtype)
    x = F.conv2d(halo.gather(x_BKTC), weight, bias, groups=len(weight))
    return x.permute(0, 2, 3, 1).reshape(x_BKTC.shape)


def kernel_gradient_by_taps(x_BKTC: Tensor, grad_BKTC: Tensor,
                            halo: Halo) -> Tensor:
    """The gradient of the kernel, (C, taps)."""
    side = halo.side
    x = halo.gather(x_BKTC).permute(0, 2, 3, 1)
    grad = grad_BKTC.reshape(-1, side, side, x.shape[-1])
    taps = range(2 * halo.padding + 1)
    return torch.stack(
        [(x[:, row:row + side, col:col + side] * grad).sum((0, 1, 2))
         for row in taps for col in taps], 1)  # yapf: disable


def kernel_gradient_at_once(x_BKTC: Tensor, grad_BKTC: Tensor, weight: Tensor,
                            halo: Halo) -> Tensor:
    """The gradient of the kernel, in the precision of the tokens."""
    x, side = halo.gather(x_BKTC), halo.side
    grad = grad_BKTC.reshape(-1, side, side, x.shape[1]).permute(0, 3, 1, 2)
    kernel = conv2d_weight(
        x, weight.shape, grad.to(x.dtype), groups=len(weight))
    return kernel.to(weight.dtype)


def depthwise_conv(x_BKTC: Tensor,
                   halo: Halo,
                   weight: Tensor,
                   bias: Optional[Tensor] = None) -> Tensor:
    """A depthwise convolution of stride 1 that keeps the map's size.

    Args:
        x_BKTC (Tensor): The visible tokens.
        halo (Halo): Made from their layout, with half the kernel as padding.
        weight (Tensor): Shape (C, 1, size, size), size odd.
        bias (Tensor, optional): Shape (C,). Defaults to None.

    Returns:
        Tensor: Shape (B, K, T, C).

    Raises:
        ValueError: If the kernel does not fit halo or tokens.
    """
    size = 2 * halo.padding + 1
    expected = (x_BKTC.shape[-1], 1, size, size)
    if weight.shape != expected:
        raise ValueError(
            f'expected a depthwise kernel of shape {expected} for a halo of '
            f'{halo.padding}, got {tuple(weight.shape)}')
    device = x_BKTC.device.type
    # Compilers know no `is_autocast_available`.
    if device != 'meta' and torch.is_autocast_enabled(device):
        x_BKTC = x_BKTC.to(torch.get_autocast_dtype(device))
    return _DepthwiseConv.apply(x_BKTC, weight, bias, halo)


def overlapping_conv(x_BKTC: Tensor,
                     halo: Halo,
                     weight: Tensor,
                     bias: Optional[Tensor] = None,
                     stride: int = 1) -> Tensor:
    """A convolution whose stride divides the side of a unit.

    Args:
        x_BKTC (Tensor): The visible tokens, or pixels.
        halo (Halo): Made from their layout, with the dense padding.
        weight (Tensor): Shape (O, C, size, size).
        bias (Tensor, optional): Shape (O,). Defaults to None.
        stride (int): The stride. Defaults to 1.

    Returns:
        Tensor: Shape (B, K, T / stride**2, O).

    Raises:
        ValueError: If the dense convolution of a map would not give one
            output per ``stride x stride`` tokens.
    """
    side, rest = divmod(halo.side, stride)
    if rest or (halo.outer_side - weight.shape[-1]) // stride + 1 != side:
        raise ValueError(
            'expected kernel and padding that keep the size of the map, up '
            f'to a stride that divides the side {halo.side} of a unit, got '
            f'kernel {weight.shape[-1]}, padding {halo.padding}, stride '
            f'{stride}')
    B, K = x_BKTC.shape[:2]
    x = F.conv2d(halo.gather(x_BKTC), weight, bias, stride)
    return x.permute(0, 2, 3, 1).reshape(B, K, side**2, len(weight))
