# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch
from torch import nn

from greenmim.models import GreenMIMCMT
from tests.backbones.checks import draw_images, draw_mask, randomise
from tests.backbones.cmt import arch


def build(**kwargs):
    return randomise(
        GreenMIMCMT(**{
            **dict(arch=arch(), img_size=64),
            **kwargs
        }))


def test_small_has_the_papers_size():
    with torch.device('meta'):
        model = GreenMIMCMT(img_size=224)
    # 25.1 million in the paper, with the classifier
    assert 24e6 < sum(p.numel() for p in model.parameters()) < 25e6
    assert [bias.bias.shape for bias in model.position_biases] == [
        (1, 3136, 49), (2, 784, 49), (4, 196, 49), (8, 49, 49)
    ]  # yapf: disable
    assert model.stem[0].out_channels == 32


def test_running_statistics_are_those_of_visible_pixels():
    """The first batch norm's, from the convolution of visible pixels."""
    model = build()
    model.train()
    images = draw_images(model, (64, 96)).float()
    mask = draw_mask('image', 2, (2, 3))
    model(images, mask)
    seen = ~mask.repeat_interleave(32, 1).repeat_interleave(32, 2)
    conv, gelu, norm = model.stem[:3]
    x = gelu(conv(images * seen[:, None]))
    x = x.permute(0, 2, 3, 1)[seen[:, ::2, ::2]]
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var(0))


def test_one_token_has_no_statistics():
    model = build()
    images, mask = torch.randn(1, 3, 32, 64), torch.tensor([[[True, False]]])
    model.train()
    with pytest.raises(ValueError, match='more than one visible token'):
        model(images, mask)
    model.eval()
    assert model(images, mask).isfinite().all()


def test_biases_of_another_size_are_resized_on_loading():
    """As they are when the image has another size."""
    small, large = build(), build(img_size=128)
    state = small.state_dict()
    large.load_state_dict(state, strict=True)
    assert small.position_biases[0].bias.shape == state[
        'position_biases.0.bias'].shape == (1, 256, 4)
    for a, b in zip(small.position_biases, large.position_biases):
        assert a.bias.shape != b.bias.shape
        torch.testing.assert_close(a(b.hw_shape), b(b.hw_shape))
    small.eval()
    large.eval()
    images = draw_images(small, (128, 128)).float()
    torch.testing.assert_close(small(images)[0], large(images)[0])


def test_loading_refuses_biases_of_other_heads():
    state = build().state_dict()
    state['position_biases.1.bias'] = torch.zeros(3, 64, 4)
    with pytest.raises(RuntimeError, match='position_biases.1.bias'):
        build(img_size=128).load_state_dict(state)


def test_init_weights():
    model = GreenMIMCMT(arch=arch(), img_size=64)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert 0.01 < module.weight.std() < 0.03
            assert not module.bias.any()
    assert all(0.01 < p.bias.std() < 0.03 for p in model.position_biases)
