# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch
from mmpretrain.registry import MODELS

from greenmim.models import HOGTarget, PixelTarget
from greenmim.models.masking import random_mask

PIXELS = dict(type='greenmim.GreenMIMHead', unit_size=8, norm_pix=False)
HOG = dict(
    type='greenmim.GreenMIMHead',
    unit_size=8,
    target=dict(type='greenmim.HOGTarget', cell_size=4),
    loss=dict(type='PixelReconstructionLoss', criterion='L1'))


def build(**kwargs):
    return MODELS.build(
        dict(
            dict(
                type='greenmim.SumOfHeads',
                heads=[PIXELS, HOG],
                channels=[192, 108]), **kwargs))


@pytest.mark.parametrize('weights', [None, [0.5, 3.]])
def test_loss_by_loops(weights):
    head = build(weights=weights)
    images = torch.randn(2, 3, 16, 16)
    pred = torch.randn(2, 4, 300)
    mask = random_mask(2, (2, 2), 0.5)
    pixels, hog = PixelTarget(8, norm=False), HOGTarget(8, cell_size=4)
    squares = pred[..., :192] - pixels(images)
    absolutes = pred[..., 192:] - hog(images)
    first, second = [], []
    for b in range(2):
        for unit in range(4):
            if mask[b].flatten()[unit]:
                first.append(squares[b, unit].square().mean())
                second.append(absolutes[b, unit].abs().mean())
    one, two = weights or (1, 1)
    expected = one * sum(first) / 4 + two * sum(second) / 4
    torch.testing.assert_close(head.loss(pred, images, mask), expected)


def test_draws_the_first():
    head = build()
    images = torch.randn(2, 3, 16, 16)
    pred = torch.cat(
        [PixelTarget(8, norm=False)(images),
         torch.randn(2, 4, 108)], 2)
    torch.testing.assert_close(head.to_images(pred, images), images)
    torch.testing.assert_close(head.draw_target(images), images)
    assert head.target.uses_target_statistics is False
    assert build(
        heads=[dict(PIXELS, norm_pix=True), HOG]).target.uses_target_statistics


@pytest.mark.parametrize('kwargs', [
    dict(channels=[300]),
    dict(weights=[1.]),
    dict(heads=[], channels=[]),
])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match='for each of one or more'):
        build(**kwargs)


def test_predictions_that_do_not_fit():
    with pytest.raises(ValueError, match='300 values.*got 192'):
        build().to_images(torch.randn(1, 4, 192), torch.randn(1, 3, 16, 16))
    with pytest.raises(ValueError, match='set the out_channels'):
        build(channels=[191, 109]).loss(
            torch.randn(1, 4, 300), torch.randn(1, 3, 16, 16),
            random_mask(1, (2, 2), 0.5))
