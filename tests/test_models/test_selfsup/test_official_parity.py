# Copyright (c) greenmim authors. All rights reserved.
"""Converted weights reproduce what the GreenMIM authors' code computes."""
import pytest
import torch
from mmpretrain.structures import DataSample

from tests.official_fixture import (build_model, convert_official,
                                    load_fixture, official_weights)

TOLERANCE = 1e-4


@pytest.fixture(scope='module')
def fixture():
    data = load_fixture()
    images = (data['image_uint8'].float() / 255 - 0.5) / 0.25
    return dict(data, images=images, mask=data['mask'].view(1, 7, 7))


def compute(fixture, converted, num_masks=1):
    """Latent, predictions (the first 64 a unit) and loss of our modules."""
    model = build_model()
    model.load_state_dict(converted, strict=True)
    images = fixture['images']
    mask = fixture['mask'].expand(num_masks, -1, -1)
    with torch.no_grad():
        latent = model.backbone(images, mask)
        pred = model.neck(latent, mask)
        loss = model.head.loss(pred, images, mask)
    return latent, pred[..., :64], loss


def errors(fixture, results):
    expected = (fixture['latent'], fixture['pred_block0'], fixture['loss'][0])
    return [(a - b).abs().max().item() for a, b in zip(results, expected)]


@pytest.mark.parametrize('num_masks', [1, 2])
def test_latent_predictions_and_loss(fixture, num_masks):
    converted = convert_official(official_weights(), 'microsoft')
    results = compute(fixture, converted, num_masks)
    assert results[0].shape == (2, 12, 64)
    latent, pred, loss = errors(fixture, results)
    assert latent < TOLERANCE and pred < TOLERANCE and loss < TOLERANCE


def test_loss_of_the_algorithm(fixture):
    model = build_model()
    converted = convert_official(official_weights(), 'microsoft')
    model.load_state_dict(converted, strict=True)
    sample = DataSample()
    sample.set_mask(fixture['mask'][0])
    loss = model(fixture['images'], [sample, sample], mode='loss')['loss']
    assert abs(loss.item() - fixture['loss'].item()) < TOLERANCE


@pytest.mark.parametrize('order', ['greenmim-2022', 'openmmlab'])
def test_another_merge_order_fails(fixture, order):
    converted = convert_official(official_weights(), order)
    latent, pred, loss = errors(fixture, compute(fixture, converted))
    assert latent > 1 and pred > 1 and loss > 2 * TOLERANCE


@pytest.mark.parametrize('name', [
    'encoder.layers.0.blocks.1.attn.relative_position_bias_table',
    'encoder.layers.2.blocks.1.attn.qkv.weight',
    'encoder.layers.1.downsample.norm.weight',
    'decoder_blocks.0.mlp.fc1.bias',
    'mask_token',
])
def test_every_part_of_the_weights_counts(fixture, name):
    weights = official_weights()
    weights[name] = torch.zeros_like(weights[name])
    converted = convert_official(weights, 'microsoft')
    _, pred, _ = errors(fixture, compute(fixture, converted))
    assert pred > 10 * TOLERANCE
