# Copyright (c) greenmim authors. All rights reserved.
"""Decoders of several stages, convolutional and linear ones, by hand."""
import pytest
import torch
from mmpretrain.registry import MODELS
from torch.nn import functional as F

from greenmim.models import (ConvNeck, FusionNeck, LinearNeck,
                             LocalReconstructionNeck)
from greenmim.models.masking import random_mask
from greenmim.ops import patchify, units_of_map

CHANNELS, TOKENS = (4, 8, 16), (16, 4, 1)
SMALL = dict(embed_dims=16, num_heads=2)
ALL = torch.zeros(1, 2, 3, dtype=torch.bool)


def randomised(neck):
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter, std=.3)
    return neck


def stages(num_units, batch=2):
    return [
        torch.randn(batch, num_units, t, c) for c, t in zip(CHANNELS, TOKENS)
    ]


def test_fusion_is_a_sum_of_strided_convolutions():
    neck = randomised(
        FusionNeck(CHANNELS, TOKENS, out_channels=12, depth=1, **SMALL))
    mask = random_mask(2, (3, 2), 0.5)
    x = stages(3)
    plain = MODELS.build(
        dict(
            type='greenmim.GreenMIMNeck',
            in_channels=16,
            out_channels=12,
            depth=1,
            **SMALL))
    decoder = neck.decoder
    state = decoder.state_dict()
    state['decoder_embed.weight'] = torch.eye(16)
    state['decoder_embed.bias'] = torch.zeros(16)
    plain.load_state_dict(state)

    latent = decoder.decoder_embed.bias.expand(2, 3, 16)
    weights = decoder.decoder_embed.weight.split(
        [t * c for c, t in zip(CHANNELS, TOKENS)], dim=1)
    for tokens, norm, weight in zip(x, neck.stage_norms, weights):
        side = int(tokens.shape[2]**0.5)
        channels = tokens.shape[3]
        tokens = F.layer_norm(tokens, (channels, ), norm.weight, norm.bias,
                              norm.eps)
        kernel = weight.view(16, side, side, channels).permute(0, 3, 1, 2)
        units = tokens.view(6, side, side, channels).permute(0, 3, 1, 2)
        latent = latent + F.conv2d(units, kernel, stride=side).view(2, 3, 16)
    torch.testing.assert_close(neck(x, mask), plain(latent, mask))


def test_local_reconstruction_has_a_decoder_of_each_stage():
    neck = randomised(
        LocalReconstructionNeck(CHANNELS, [5, 1, 3], TOKENS, depth=1, **SMALL))
    mask = random_mask(2, (3, 2), 0.5)
    x = stages(3)
    pred = neck(x, mask)
    assert pred.shape == (2, 6, 9)
    for i, part in enumerate(pred.split([5, 1, 3], dim=2)):
        alone = neck.decoders[i](x[i].flatten(2), mask)
        assert torch.equal(part, alone)
        changed = list(x)
        changed[i] = changed[i] + 1
        parts = neck(changed, mask).split([5, 1, 3], dim=2)
        for j, other in enumerate(pred.split([5, 1, 3], dim=2)):
            assert torch.equal(parts[j], other) == (i != j)


def test_convolutions_by_hand():
    neck = randomised(
        ConvNeck(
            kernel_size=3,
            in_channels=8,
            embed_dims=16,
            out_channels=5,
            mlp_ratio=2.))
    mask = random_mask(2, (3, 4), 0.5)
    latent = torch.randn(2, 6, 8)
    p = dict(neck.named_parameters())
    block = 'conv_blocks.0.'

    def norm(x, name):
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-6).sqrt()
        return x * p[name + '.weight'] + p[name + '.bias']

    for b in range(2):
        grid = torch.zeros(5, 6, 16)  # with a border of zeros
        rank = 0
        for y in range(3):
            for x in range(4):
                token = p['mask_token'][0, 0]
                if not mask[b, y, x]:
                    token = F.linear(latent[b,
                                            rank], p['decoder_embed.weight'],
                                     p['decoder_embed.bias'])
                    rank += 1
                grid[y + 1, x + 1] = token
        for y in range(3):
            for x in range(4):
                around = grid[y:y + 3, x:x + 3]
                kernel = p[block + 'depthwise_conv.weight'][:, 0]
                out = (around.permute(2, 0, 1) * kernel).sum((1, 2))
                out = norm(out + p[block + 'depthwise_conv.bias'],
                           block + 'norm')
                for i in '12':
                    out = F.linear(out, p[f'{block}pointwise_conv{i}.weight'],
                                   p[f'{block}pointwise_conv{i}.bias'])
                    out = F.gelu(out) if i == '1' else out
                out = norm(out + grid[y + 1, x + 1], 'decoder_norm')
                out = F.linear(out, p['decoder_pred.weight'],
                               p['decoder_pred.bias'])
                torch.testing.assert_close(
                    neck(latent, mask)[b, 4 * y + x],
                    out,
                    rtol=1e-4,
                    atol=1e-4)


@pytest.mark.parametrize('build, text', [
    (lambda: FusionNeck(CHANNELS, (4, 1)), 'tokens'),
    (lambda: LocalReconstructionNeck(CHANNELS, [1], TOKENS), 'out_channels'),
    (lambda: ConvNeck(kernel_size=4), 'odd'),
])
def test_bad_arguments(build, text):
    with pytest.raises(ValueError, match=text):
        build()


@pytest.mark.parametrize('neck', [
    FusionNeck(CHANNELS, TOKENS, **SMALL),
    LocalReconstructionNeck(CHANNELS, [1] * 3, TOKENS, **SMALL)
])
def test_stages_that_do_not_fit(neck):
    x, mask = stages(3), random_mask(2, (3, 2), 0.5)
    with pytest.raises(ValueError, match=r'out_indices'):
        neck(x[-1:], mask)
    with pytest.raises(ValueError, match=r'\(16, 4\).*\(4, 8\)'):
        neck(x[::-1], mask)
    with pytest.raises(ValueError, match='visible'):
        neck(stages(2), mask)


def test_every_decoder_draws_its_mask_token():
    neck = LocalReconstructionNeck(CHANNELS, (12, 8, 4), TOKENS, **SMALL)
    neck.init_weights()
    tokens = [decoder.mask_token for decoder in neck.decoders]
    assert all(0.005 < token.std() < 0.05 for token in tokens)


@pytest.mark.parametrize('side', [1, 2, 4])
def test_the_linear_neck_equals_a_pixel_shuffle(side):
    """SimMIM's decoder: a 1x1 convolution and a pixel shuffle on the map."""
    torch.manual_seed(0)
    neck = LinearNeck(12, 8 * 8 * 3, tokens_side=side, unit_size=8)
    x = torch.randn(2, 12, 2 * side, 3 * side)
    latent = units_of_map(x, (2, 3)).flatten(1, 2)
    pixels = 8 // side
    order = torch.arange(pixels**2 * 3).view(pixels, pixels, 3)
    order = order.permute(2, 0, 1).flatten()
    images = F.pixel_shuffle(
        F.conv2d(x, neck.linear.weight[order, :, None, None],
                 neck.linear.bias[order]), pixels)
    torch.testing.assert_close(neck(latent, ALL), patchify(images, 8))


def test_tokens_that_do_not_fit_the_linear_neck():
    neck = LinearNeck(12, 192, tokens_side=2, unit_size=8)
    with pytest.raises(ValueError, match='24 tokens, 2x2 a unit, got 6'):
        neck(torch.zeros(2, 6, 12), ALL)
    with pytest.raises(ValueError, match='3 visible ones'):
        neck(torch.zeros(2, 12, 12), random_mask(2, (2, 3), 0.5))
    with pytest.raises(ValueError, match='tokens_side to divide unit_size'):
        LinearNeck(12, 192, tokens_side=3, unit_size=8)
    with pytest.raises(ValueError, match='divides out_channels'):
        LinearNeck(12, 100, tokens_side=2, unit_size=8)
