# Copyright (c) greenmim authors. All rights reserved.
"""What Swin Transformer V2 has beyond the common tests."""
import math

import pytest
import torch
from mmpretrain.models import SwinTransformerV2

from greenmim.models import GreenMIMSwinTransformerV2
from tests.backbones.checks import (build, draw_images, draw_mask, errors,
                                    output_and_grads)
from tests.backbones.swin_v2 import SWIN_V2
from tests.backbones.swin_v2_twin import DenseSwinV2Twin


@pytest.mark.parametrize('name', ['tiny', 'small', 'base', 'large', 'huge'])
def test_archs(name):
    """The parent's parameters, and its extra norms."""
    arch = SwinTransformerV2.arch_zoo[name]
    heads = [max(1, heads // 4) for heads in arch['num_heads']]
    arch = dict(arch, embed_dims=8 * heads[0], num_heads=heads)
    model = GreenMIMSwinTransformerV2(arch=arch, window_size=16)
    parent = SwinTransformerV2(arch=arch, window_size=16)
    expected = {n: p.shape for n, p in parent.state_dict().items()}
    assert {n: p.shape for n, p in model.state_dict().items()} == expected
    assert any('norm3.' in n and 'blocks' in n for n in expected) == (
        name == 'huge')


def test_the_scale_of_logits_is_limited():
    """exp(logit_scale) beyond 100 counts as 100, with no gradient."""
    model = build(SWIN_V2, window_size=4)
    images = draw_images(model, (64, 96))
    mask = draw_mask('image', 2, (2, 3))
    scale = model.stages[0].blocks[0].attn.w_msa.logit_scale
    scale.data.fill_(math.log(1000.))
    actual = output_and_grads(lambda x: model(x, mask), model, images)
    expected = output_and_grads(lambda x: DenseSwinV2Twin(model)(x, mask),
                                model, images)
    assert max(errors(actual, expected)) <= 1e-10
    assert scale.grad.eq(0).all()
    scale.data.fill_(math.log(100.))
    assert torch.allclose(model(images, mask), actual[0], atol=1e-10)


@pytest.mark.parametrize('window', [7, [8, 4, 4, 2]])
def test_a_checkpoint_fits_any_window(window):
    """The network of the biases has no table; the offsets are rebuilt."""
    pretrained = build(SWIN_V2, window_size=4)
    sizes = [4, 4, 4, 4]
    micro = dict(
        SWIN_V2.micro, window_size=window, pretrained_window_sizes=sizes)
    model = GreenMIMSwinTransformerV2(**micro).double()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.load_state_dict(pretrained.state_dict(), strict=True)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])
    parent = SwinTransformerV2(**micro).double()
    SWIN_V2.load_parent(parent, pretrained)
    for name, param in pretrained.named_parameters():
        assert torch.equal(parent.get_parameter(name), param)
        assert torch.equal(model.get_parameter(name), param)
    parent.eval()
    model.eval()
    side = 224 if window == 7 else 64
    x = torch.randn(1, 3, side, side, dtype=torch.float64)
    assert torch.equal(model(x)[0], parent(x)[0])


def test_offsets_are_log_spaced():
    """sign(d) * log2(1 + |8 * d / (w - 1)|) / log2(8), section 3.3."""
    model = GreenMIMSwinTransformerV2(
        **SWIN_V2.micro, window_size=6, pretrained_window_sizes=[0, 4, 4, 4])
    for i, last in ((0, 5), (1, 3)):
        table = model.stages[i].blocks[0].attn.w_msa.relative_coords_table
        for offset in range(-5, 6):
            expected = math.log2(1 + abs(8 * offset / last)) / 3
            expected = math.copysign(expected, offset)
            assert table[0, offset + 5, 0, 0] == pytest.approx(expected)
            assert table[0, 0, offset + 5, 1] == pytest.approx(expected)
