# Copyright (c) greenmim authors. All rights reserved.
"""What a reconstruction holds for every target and way to undo its norm."""
import pytest
import torch

from greenmim.models.masking import random_mask
from greenmim.models.target_generators import fill_from_neighbours
from greenmim.ops import VisibleLayout
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


@pytest.mark.parametrize('channels', [1, 4])
@pytest.mark.parametrize('target', [PIXEL, LOW])
def test_statistics_of_neighbours(target, channels):
    model = model_for(target, channels)
    images = 1 + 2 * torch.randn(2, channels, 64, 96)
    near = model.reconstruct(images, MASK, statistics='neighbours')
    true = model.reconstruct(images, MASK)
    assert near['pred_uses_neighbour_statistics']
    assert not near['pred_uses_target_statistics']
    assert true['pred_uses_target_statistics']
    assert not true['pred_uses_neighbour_statistics']
    visible = ~true['mask'].expand_as(images)
    assert torch.equal(near['pred'][visible], true['pred'][visible])
    assert not torch.allclose(near['pred'], true['pred'])

    # Nothing of what is masked is left in the picture.
    others = torch.where(visible, images, torch.randn_like(images))
    again = model.reconstruct(others, MASK, statistics='neighbours')
    assert torch.equal(again['pred'], near['pred'])


def test_interpolated_mean_and_deviation_are_those_of_the_prediction():
    model = model_for(PIXEL)
    images = 1 + 2 * torch.randn(2, 3, 64, 96)
    pred = model.reconstruct(images, MASK, statistics='neighbours')['pred']
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
        assert not result['pred_uses_target_statistics']
    else:
        squares = images[..., :4, :4].mean((2, 3), keepdim=True)
        torch.testing.assert_close(drawn[..., :4, :4],
                                   squares.expand(-1, -1, 4, 4))


def test_bad_statistics_are_refused():
    with pytest.raises(ValueError, match="'neighbours', got 'mean'"):
        model_for(PIXEL).reconstruct(
            torch.randn(2, 3, 64, 96), MASK, statistics='mean')
