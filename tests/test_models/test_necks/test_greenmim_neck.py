# Copyright (c) greenmim authors. All rights reserved.
import math

import pytest
import torch
from mmpretrain.registry import MODELS
from torch.nn import functional as F

from greenmim.models import GreenMIMNeck
from greenmim.models.masking import random_mask

MICRO = dict(
    type='greenmim.GreenMIMNeck',
    in_channels=24,
    embed_dims=32,
    depth=1,
    num_heads=4,
    out_channels=48)


def build_neck(**overrides):
    """A micro decoder, every parameter of which is random."""
    neck = MODELS.build(dict(MICRO, **overrides))
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter, std=.3)
    return neck


def slow_neck(neck, latent, mask):
    """The decoder image by image and unit by unit, on plain tensors."""
    params = dict(neck.named_parameters())
    eps = neck.decoder_norm.eps

    def linear(x, name):
        return x @ params[f'{name}.weight'].T + params[f'{name}.bias']

    def norm(x, name):
        mean = x.mean(-1, keepdim=True)
        var = ((x - mean)**2).mean(-1, keepdim=True)
        x = (x - mean) / (var + eps).sqrt()
        return x * params[f'{name}.weight'] + params[f'{name}.bias']

    def position(y, x, dims):
        omega = [1 / 10000**(i / (dims // 4)) for i in range(dims // 4)]
        return latent.new_tensor([math.sin(x * w) for w in omega] +
                                 [math.cos(x * w) for w in omega] +
                                 [math.sin(y * w) for w in omega] +
                                 [math.cos(y * w) for w in omega])

    outs = []
    for b, tokens in enumerate(latent):
        hidden = mask[b if len(mask) > 1 else 0]
        sequence, rank = [], 0
        for y in range(hidden.shape[0]):
            for x in range(hidden.shape[1]):
                if hidden[y, x]:
                    token = params['mask_token'][0, 0]
                else:
                    token = linear(tokens[rank], 'decoder_embed')
                    rank += 1
                sequence.append(token + position(y, x, neck.embed_dims))
        x = torch.stack(sequence)

        for i, block in enumerate(neck.decoder_blocks):
            name = f'decoder_blocks.{i}'
            heads = block.attn.num_heads
            dims = neck.embed_dims // heads
            qkv = linear(norm(x, f'{name}.ln1'), f'{name}.attn.qkv')
            q, k, v = qkv.split(neck.embed_dims, dim=1)
            attended = []
            for h in range(heads):
                part = slice(h * dims, (h + 1) * dims)
                logits = q[:, part] @ k[:, part].T / dims**.5
                attended.append(logits.softmax(1) @ v[:, part])
            x = x + linear(torch.cat(attended, 1), f'{name}.attn.proj')
            y = linear(norm(x, f'{name}.ln2'), f'{name}.ffn.layers.0.0')
            x = x + linear(F.gelu(y), f'{name}.ffn.layers.1')
        outs.append(linear(norm(x, 'decoder_norm'), 'decoder_pred'))
    return torch.stack(outs)


@pytest.mark.parametrize('depth', [1, 2])
@pytest.mark.parametrize('grid, ratio', [
    ((3, 3), 0.75),
    ((2, 5), 0.5),
    ((5, 2), 0.9),
    ((4, 3), 0.1),
    ((1, 4), 0.),
    ((1, 1), 0.),
])
@pytest.mark.parametrize('num_masks', [1, 3])
def test_outputs_and_gradients_equal_the_slow_twin(depth, grid, ratio,
                                                   num_masks):
    torch.manual_seed(0)
    neck = build_neck(depth=depth).double()
    mask = random_mask(num_masks, grid, ratio)
    num_visible = int((~mask[0]).sum())
    latent = torch.randn(3, num_visible, 24).double().requires_grad_()

    actual = neck(latent, mask)
    expected = slow_neck(neck, latent, mask)
    assert actual.shape == (3, grid[0] * grid[1], 48)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)

    weight = torch.randn_like(actual)
    leaves = [latent, *neck.parameters()]
    actual = torch.autograd.grad(
        (actual * weight).sum(), leaves, allow_unused=True)
    expected = torch.autograd.grad(
        (expected * weight).sum(), leaves, allow_unused=True)
    for got, wanted in zip(actual, expected):
        if wanted is None:  # the mask token, where nothing is masked
            assert not got.any()
            continue
        scale = wanted.abs().max().clamp(min=1e-3)
        torch.testing.assert_close(
            got / scale, wanted / scale, rtol=0, atol=1e-10)


def test_calls_leave_no_trace():
    torch.manual_seed(0)
    neck = build_neck()
    small, large = random_mask(1, (2, 3), 0.5), random_mask(1, (6, 4), 0.5)
    latent = torch.randn(2, 12, 24)
    state = {k: v.clone() for k, v in neck.state_dict().items()}
    before = neck(latent[:, :3], small)
    neck(latent, large)
    assert torch.equal(neck(latent[:, :3], small), before)
    assert neck.state_dict().keys() == state.keys()
    assert all(torch.equal(neck.state_dict()[k], v) for k, v in state.items())
    assert not list(neck.buffers())


def test_defaults_are_the_papers():
    neck = GreenMIMNeck()
    assert neck.decoder_embed.weight.shape == (512, 1024)
    assert neck.decoder_pred.weight.shape == (32 * 32 * 3, 512)
    assert len(neck.decoder_blocks) == 1
    assert neck.decoder_blocks[0].attn.num_heads == 16
    assert neck.decoder_blocks[0].ffn.layers[0][0].out_features == 2048
    norms = [m for m in neck.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-6] * 3


def test_autocast_and_half_precision_weights():
    torch.manual_seed(0)
    neck = build_neck()
    mask = random_mask(1, (3, 4), 0.5)
    latent = torch.randn(2, 6, 24)
    expected = neck(latent, mask)
    assert expected.dtype == torch.float32
    with torch.autocast('cpu', torch.bfloat16):
        cast = neck(latent, mask)
    halves = neck.bfloat16()(latent.bfloat16(), mask)
    for actual, limit in ((cast, 0.03), (halves, 0.05)):
        assert actual.dtype == torch.bfloat16
        error = (actual - expected).abs().max() / expected.abs().max()
        assert 0 < error < limit


@pytest.mark.parametrize('shape', [(2, 5, 24), (2, 7, 24), (2, 6, 23),
                                   (2, 6, 1, 24), (6, 24)])
def test_refuses_a_latent_that_does_not_fit(shape):
    mask = random_mask(1, (3, 4), 0.5)
    with pytest.raises(ValueError, match=r'expected a latent of shape \(B, 6'):
        build_neck()(torch.zeros(shape), mask)


def test_refuses_masks_of_another_batch():
    with pytest.raises(ValueError, match='1 mask for the batch or 2'):
        build_neck()(torch.zeros(2, 6, 24), random_mask(3, (3, 4), 0.5))


@pytest.mark.parametrize('embed_dims', [30, 32])
def test_refuses_dims_that_do_not_divide(embed_dims):
    with pytest.raises(ValueError, match='for the positions, of 4'):
        build_neck(embed_dims=embed_dims, num_heads=5)
    if embed_dims % 5 == 0:  # which is enough without positions
        build_neck(embed_dims=embed_dims, num_heads=5, pos_embed=False)


def slow_blocks(neck, x):
    """The blocks and the layers after them, by the neck's own modules."""
    for block in neck.decoder_blocks:
        x = block(x)
    return neck.decoder_pred(neck.decoder_norm(x))


def test_without_positions_the_units_are_a_set():
    """Permuted units have permuted predictions, unless there are positions."""
    torch.manual_seed(0)
    mask = torch.zeros(1, 2, 3, dtype=torch.bool)
    latent = torch.randn(2, 6, 24)
    order = torch.randperm(6)
    for pos_embed in (False, True):
        neck = build_neck(pos_embed=pos_embed, depth=2)
        same = torch.allclose(
            neck(latent[:, order], mask),
            neck(latent, mask)[:, order],
            atol=1e-5)
        assert same != pos_embed


def test_without_mask_token_every_unit_is_needed():
    neck = build_neck(mask_token=False, pos_embed=False)
    assert 'mask_token' not in neck.state_dict()
    neck.init_weights()
    latent = torch.randn(2, 6, 24)
    pred = neck(latent, torch.zeros(1, 2, 3, dtype=torch.bool))
    expected = slow_blocks(neck, neck.decoder_embed(latent))
    torch.testing.assert_close(pred, expected)
    with pytest.raises(ValueError, match='set mask_token=True'):
        neck(latent[:, :3], random_mask(2, (2, 3), 0.5))


def test_class_token_is_one_more_token():
    """It has no position and no prediction."""
    torch.manual_seed(0)
    neck = build_neck(class_token=True)
    mask = random_mask(2, (2, 3), 0.5)
    latent, token = torch.randn(2, 3, 24), torch.randn(2, 24)
    pred = neck(latent, mask, token)
    plain = build_neck()
    plain.load_state_dict(neck.state_dict())
    embedded = []
    block = plain.decoder_blocks[0]
    block.register_forward_pre_hook(lambda _, x: embedded.append(x[0]))
    without = plain(latent, mask)
    x = torch.cat([neck.decoder_embed(token)[:, None], embedded[0]], 1)
    torch.testing.assert_close(pred, slow_blocks(neck, x)[:, 1:])
    assert not torch.allclose(pred, without, atol=1e-2)
    with pytest.raises(ValueError, match='expected a class token, got none'):
        neck(latent, mask)
    with pytest.raises(ValueError, match='expected no class token, got one'):
        plain(latent, mask, token)
