# Copyright (c) greenmim authors. All rights reserved.
"""Converted weights reproduce what the FastMIM authors' code computes."""
import pytest
import torch
from mmpretrain.structures import DataSample

from greenmim.weights import (convert_decoder_or_head, read_backbone,
                              read_source)
from tests.fastmim_fixture import PATH, build_model, load_fixture
from tests.micro import plan_of

TOLERANCE = 1e-4


@pytest.fixture(scope='module')
def data():
    data = load_fixture()
    images = (data['image_uint8'].float() / 255 - 0.5) / 0.25
    return dict(data, images=images, mask=data['mask'].bool())


@pytest.fixture
def model():
    source = read_source(PATH)
    backbone = read_backbone(source, 'fastmim')
    rest, _ = convert_decoder_or_head('fastmim', source, backbone)
    model = build_model()
    model.load_state_dict({
        **{
            f'backbone.{k}': v
            for k, v in backbone.tensors.items()
        },
        **rest
    })
    return model


@torch.no_grad()
def errors(model, data):
    """Errors of encoder, predictions and loss."""
    images = data['images']
    plan = plan_of(model, images, data['mask'])
    encoded = model.encode(images, plan)
    pred = model.decode(encoded)
    loss = model.head.loss(pred, images, plan.layout)
    assert encoded.latent.shape == (2, 16, 64)
    return [(encoded.latent - data['encoder_out']).abs().max(),
            (pred - data['pred']).abs().max(),
            abs(loss - data['loss'][0])]


def test_latent_predictions_and_loss(model, data):
    assert not torch.equal(data['mask'][0], data['mask'][1])
    assert max(errors(model, data)) < TOLERANCE


def test_loss_of_the_algorithm(model, data):
    samples = [DataSample(), DataSample()]
    for sample, mask in zip(samples, data['mask']):
        sample.set_mask(mask)
    loss = model(data['images'], samples, mode='loss')['loss']
    assert abs(loss.item() - data['loss'].item()) < TOLERANCE


@pytest.mark.parametrize('name', [
    'mask_token',
    'neck.decoder_blocks.1.attn.qkv.weight',
    'backbone.stages.1.blocks.1.attn.w_msa.relative_position_bias_table',
])
def test_every_part_of_the_weights_counts(model, data, name):
    torch.nn.init.zeros_(model.get_parameter(name))
    assert errors(model, data)[1] > 10 * TOLERANCE


def test_other_targets_have_another_loss(model, data):
    model.head.target.norm = False
    assert errors(model, data)[2] > 100 * TOLERANCE
