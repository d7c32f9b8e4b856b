# Copyright (c) greenmim authors. All rights reserved.
"""What a reconstruction holds for every target and way to undo its norm."""
import numpy as np
import pytest
import torch
from mmpretrain.models import SelfSupDataPreprocessor

from greenmim.models.masking import random_mask
from greenmim.models.target_generators import fill_from_neighbours
from greenmim.ops import VisibleLayout
from greenmim.visualization import captions_of, reconstruction_columns
from tests.micro import micro_config, micro_model

GRID = 2, 3
MASK = random_mask(2, GRID, 0.5, torch.Generator().manual_seed(0))
HOG = dict(type='greenmim.HOGTarget')
PIXEL = dict(type='greenmim.PixelTarget')
LOW = dict(type='greenmim.LowFrequencyTarget', factor=4)


def model_for(target, channels=3):
    values = dict(HOGTarget=144, PixelTarget=1024, LowFrequencyTarget=64)
    out_channels = channels * values[target['type'].split('.')[-1]]
    neck = dict(micro_config()['neck'], out_channels=out_channels)
    return micro_model(
        in_channels=channels,
        neck=neck,
        head=dict(type='greenmim.GreenMIMHead', target=target)).eval()


@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('target', [PIXEL, LOW, HOG])
def test_masked_pixels_do_not_leak(target, channels):
    """They change what shows the truth, and nothing else."""
    model = model_for(target, channels)
    images = 1 + 2 * torch.randn(2, channels, 64, 96)
    hidden = model.reconstruct(images, MASK)['mask'].expand_as(images)
    others = torch.where(hidden, 9 * torch.randn_like(images) - 4, images)
    given, changed = (model.reconstruct(x, MASK) for x in (images, others))
    for name in ('pred', 'mask', 'known', 'drawn_known'):
        assert torch.equal(given[name], changed[name]), name
    assert given['naive'].keys() == changed['naive'].keys()
    for name, filling in given['naive'].items():
        assert torch.equal(filling, changed['naive'][name]), name
    assert set(given['naive']) == (
        set() if target is HOG else {'mean', 'smooth'})

    preprocessor = SelfSupDataPreprocessor(mean=[50.], std=[20.])
    bands = [4, 2, 0] if channels == 5 else None
    panels, others = (
        reconstruction_columns(result, preprocessor, bands, stretch=True)
        for result in (given, changed))
    for name in panels.keys() - {'input', 'target', 'error'}:
        assert np.array_equal(panels[name], others[name]), name
    assert not np.array_equal(panels['error'], others['error'])
    assert captions_of(given)[:-1] == captions_of(changed)[:-1]


def test_interpolated_mean_and_deviation_are_those_of_the_prediction():
    model = model_for(PIXEL)
    images = 1 + 2 * torch.randn(2, 3, 64, 96)
    pred = model.reconstruct(images, MASK)['pred']
    known = fill_from_neighbours(images, VisibleLayout.from_mask(MASK), 32)
    values = model.neck(model.backbone(images, MASK), MASK).detach()
    for b in range(2):
        for unit in range(6):
            place = (b, slice(None),
                     slice(32 * (unit // 3), 32 * (unit // 3) + 32),
                     slice(32 * (unit % 3), 32 * (unit % 3) + 32))
            std = (known[place].var() + 1e-6).sqrt()
            expected = values[b, unit].view(32, 32, 3).permute(2, 0, 1) * std
            torch.testing.assert_close(
                pred[place], expected + known[place].mean(), rtol=0, atol=1e-4)


@pytest.mark.parametrize('target, is_image', [(PIXEL, True), (LOW, True),
                                              (HOG, False)])
def test_drawn_target(target, is_image):
    model = model_for(target)
    images = torch.randn(2, 3, 64, 96)
    result = model.reconstruct(images, MASK)
    assert result['pred_is_image'] is is_image
    drawn = result['drawn_target']
    assert drawn.shape == images.shape
    if target is PIXEL:
        torch.testing.assert_close(drawn, images, rtol=0, atol=1e-5)
    elif target is HOG:
        assert drawn.min() == 0 and torch.equal(
            drawn,
            model.head.target.to_images(model.head.target(images), images))
        assert not result['pred_uses_neighbour_statistics']
    else:
        squares = images[..., :4, :4].mean((2, 3), keepdim=True)
        torch.testing.assert_close(drawn[..., :4, :4],
                                   squares.expand(-1, -1, 4, 4))
