# Copyright (c) greenmim authors. All rights reserved.
"""Convolutions of visible units against dense ones of zero-filled maps."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from greenmim.models import GreenMIMConvNeXt
from greenmim.models.masking import random_mask
from greenmim.ops import (Halo, VisibleLayout, depthwise_conv, gather_units,
                          overlapping_conv, units_of_map)
from greenmim.ops.halo_conv import (kernel_gradient_at_once,
                                    kernel_gradient_by_taps)

CPU = torch.device('cpu')


def dense(x_BCHW, mask, side, weight, bias, stride, padding, groups):
    """All tokens of the map, masked ones zero; visible outputs."""
    hidden = mask.repeat_interleave(side, 1).repeat_interleave(side, 2)
    x = x_BCHW.masked_fill(hidden[:, None], 0.)
    x = F.conv2d(x, weight, bias, stride, padding, groups=groups)
    layout = VisibleLayout.from_mask(mask)
    return gather_units(units_of_map(x, layout.grid), layout.units)


def visible_only(x_BCHW, mask, side, weight, bias, stride, padding, groups):
    layout = VisibleLayout.from_mask(mask)
    x = gather_units(units_of_map(x_BCHW, layout.grid), layout.units)
    halo = Halo.from_layout(layout, side, padding, CPU)
    if groups > 1:
        return depthwise_conv(x, halo, weight, bias)
    return overlapping_conv(x, halo, weight, bias, stride)


def with_grads(function, x, mask, side, weight, bias, *args):
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    out = function(leaves[0], mask, side, *leaves[1:], *args)
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(out.shape, generator=generator, dtype=out.dtype)
    (out * factor).sum().backward()
    return [out.detach()] + [leaf.grad for leaf in leaves]


@st.composite
def masks(draw, batch):
    grid = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    seed = draw(st.integers(0, 99))
    ratio = draw(st.sampled_from([0., 0.4, 0.75]))
    if grid[0] * grid[1] < 4:
        ratio = 0.
    return random_mask(
        draw(st.sampled_from([1, batch])), grid, ratio,
        torch.Generator().manual_seed(seed))


def random_inputs(draw, mask, side, batch, shape):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    height, width = (side * cells for cells in mask.shape[1:])

    def randn(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    channels = shape[0] if shape[1] == 1 else shape[1]
    return randn(batch, channels, height,
                 width), randn(*shape), randn(shape[0])


def assert_same(arguments, x, mask, side, weight, bias):
    """And NaN where the mask is changes nothing."""
    expected = with_grads(dense, x, mask, side, weight, bias, *arguments)
    actual = with_grads(visible_only, x, mask, side, weight, bias, *arguments)
    for one, other in zip(actual, expected):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-10
    hidden = mask.repeat_interleave(side, 1).repeat_interleave(side, 2)
    x = x.masked_fill(hidden[:, None], math.nan)
    again = with_grads(visible_only, x, mask, side, weight, bias, *arguments)
    assert all(map(torch.equal, again, actual))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_depthwise_conv(data):
    draw = data.draw
    batch, padding = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    side, channels = draw(st.integers(1, 5)), draw(st.integers(2, 3))
    mask = draw(masks(batch))
    size = 2 * padding + 1
    inputs = random_inputs(draw, mask, side, batch, (channels, 1, size, size))
    assert_same((1, padding, channels), inputs[0], mask, side, *inputs[1:])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_overlapping_conv(data):
    """Patch embeddings (7, 4, 3), (3, 2, 1), and others of every kind."""
    draw = data.draw
    batch, stride = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    padding = draw(st.integers(0, 3))
    # as many outputs as strides: 0 <= 2 * padding + stride - size < stride
    size = draw(st.integers(2 * padding + 1, 2 * padding + stride))
    side = stride * draw(st.integers(1, 2))
    mask = draw(masks(batch))
    inputs = random_inputs(draw, mask, side, batch, (2, 3, size, size))
    assert_same((stride, padding, 1), inputs[0], mask, side, *inputs[1:])


def test_a_window_is_no_larger_than_its_halo():
    layout = VisibleLayout.from_mask(random_mask(1, (9, 9), 0.75))
    halo = Halo.from_layout(layout, 2, 3, CPU)
    assert len(halo.index) == layout.num_visible * 8 * 8


def test_autocast_reaches_output_and_gradients():
    layout = VisibleLayout.from_mask(random_mask(1, (3, 3), 0.5))
    x, weight = torch.randn(1, 4, 4, 3), torch.randn(3, 1, 3, 3)
    leaves = x.requires_grad_(), weight.requires_grad_()
    halo = Halo.from_layout(layout, 2, 1, CPU)
    exact = depthwise_conv(x, halo, weight)
    with torch.autocast('cpu', torch.bfloat16):
        out = depthwise_conv(x, halo, weight)
    assert out.dtype == torch.bfloat16
    assert (out - exact).norm() <= 1e-2 * exact.norm()
    grads = torch.autograd.grad(out.float().square().sum(), leaves)
    expected = torch.autograd.grad(exact.square().sum(), leaves)
    for actual, other in zip(grads, expected):
        assert actual.dtype == torch.float32
        assert (actual - other).norm() <= 2e-2 * other.norm()


def test_what_does_not_fit_is_refused():
    layout = VisibleLayout.from_mask(random_mask(1, (3, 3), 0.5))
    halo = Halo.from_layout(layout, 2, 1, CPU)
    x = torch.randn(2, 4, 4, 3)
    with pytest.raises(ValueError, match='depthwise kernel'):
        depthwise_conv(x, halo, torch.randn(3, 1, 5, 5))
    with pytest.raises(ValueError, match='make the halo'):
        depthwise_conv(x[:, :3], halo, torch.randn(3, 1, 3, 3))
    with pytest.raises(ValueError, match='stride'):
        overlapping_conv(x, halo, torch.randn(5, 3, 3, 3), None, 4)
    with pytest.raises(ValueError, match='padding 1'):
        overlapping_conv(x, halo, torch.randn(5, 3, 5, 5), None, 2)


@pytest.mark.parametrize('side, padding', [(8, 3), (1, 3), (2, 1), (4, 2)])
@pytest.mark.parametrize('num_masks', [1, 2])
def test_the_kernel_gradient_of_gpus_equals_that_of_cpus(
        side, padding, num_masks):
    generator = torch.Generator().manual_seed(side)
    layout = VisibleLayout.from_mask(
        random_mask(num_masks, (3, 4), 0.5, generator))
    halo = Halo.from_layout(layout, side, padding, CPU)
    x, grad = torch.randn(
        2, 2, 6, side**2, 5, generator=generator, dtype=torch.float64)
    weight = torch.empty(5, 1, *[2 * padding + 1] * 2, dtype=x.dtype)
    expected = kernel_gradient_by_taps(x, grad, halo).view(weight.shape)
    actual = kernel_gradient_at_once(x, grad, weight, halo)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    wrong = kernel_gradient_at_once(x.flip(0), grad, weight, halo)
    assert (wrong - expected).abs().max() > 1e-3


class Count(TorchDispatchMode):
    """Counts the operators that run kernels."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        views = any(
            output.alias_info is not None and not output.alias_info.is_write
            for output in func._schema.returns)
        self.number += not views and 'empty' not in name
        return func(*args, **(kwargs or {}))


def test_operators_of_convnext_off_the_cpu():
    """Their number on the meta device is that on a GPU."""
    model = GreenMIMConvNeXt(arch='base', out_indices=(3, )).to('meta')
    mask = random_mask(1, (7, 7), 0.75, torch.Generator().manual_seed(0))
    images = torch.empty(2, 3, 224, 224, device='meta')
    with Count() as forward:
        loss = model(images, mask).sum()
    with Count() as backward:
        loss.backward()
    assert 300 <= forward.number <= 500
    # 4,400 with a product and a sum for each of the 49 taps
    assert 600 <= backward.number <= 900
