# Copyright (c) greenmim authors. All rights reserved.
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from greenmim.models import GreenMIMHead
from greenmim.models.masking import random_mask
from greenmim.ops import VisibleLayout, patchify


def build_head(criterion='L2', **overrides):
    return MODELS.build(
        dict(
            type='greenmim.GreenMIMHead',
            loss=dict(type='PixelReconstructionLoss', criterion=criterion),
            unit_size=8,
            **overrides))


def slow_target(images, row, col, unit, norm_pix):
    """One unit's target, pixel by pixel: row, column, channel."""
    vector = [
        images[c, row * unit + y, col * unit + x] for y in range(unit)
        for x in range(unit) for c in range(images.shape[0])
    ]
    vector = np.array(vector, dtype=np.float64)
    if norm_pix:
        mean = vector.sum() / len(vector)
        var = ((vector - mean)**2).sum() / (len(vector) - 1)
        vector = (vector - mean) / np.sqrt(var + 1e-6)
    return vector


def slow_loss(pred, images, mask, criterion, norm_pix, unit=8):
    pred, images, mask = pred.numpy(), images.numpy(), mask.numpy()
    errors = []
    for b in range(len(images)):
        hidden = mask[b if len(mask) > 1 else 0]
        for row in range(hidden.shape[0]):
            for col in range(hidden.shape[1]):
                if not hidden[row, col] and mask.any():
                    continue
                target = slow_target(images[b], row, col, unit, norm_pix)
                error = pred[b, row * hidden.shape[1] + col] - target
                errors.append(
                    np.abs(error).mean() if criterion == 'L1' else (
                        error**2).mean())
    return np.mean(errors)


@pytest.mark.parametrize('criterion', ['L1', 'L2'])
@pytest.mark.parametrize('norm_pix', [True, False])
@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('grid, ratio', [((3, 3), 0.75), ((2, 4), 0.5),
                                         ((4, 1), 0.3), ((2, 2), 0.),
                                         ((1, 1), 0.)])
@pytest.mark.parametrize('num_masks', [1, 3])
def test_loss_by_loops(criterion, norm_pix, channels, grid, ratio, num_masks):
    torch.manual_seed(0)
    head = build_head(criterion, norm_pix=norm_pix)
    images = 3 * torch.randn(3, channels, grid[0] * 8, grid[1] * 8).double()
    pred = torch.randn(3, grid[0] * grid[1], 64 * channels).double()
    mask = random_mask(num_masks, grid, ratio)
    actual = head.loss(pred, images, mask)
    expected = slow_loss(pred, images, mask, criterion, norm_pix)
    assert actual.dtype == torch.float64 and actual.ndim == 0
    assert actual.item() == pytest.approx(expected, rel=1e-10)
    layout = VisibleLayout.from_mask(mask)
    assert torch.equal(head.loss(pred, images, layout), actual)


def test_defaults_are_the_papers():
    head = MODELS.build(dict(type='greenmim.GreenMIMHead'))
    assert head.target.norm and head.target.eps == 1e-6
    assert head.unit_size == 32
    images, pred = torch.randn(1, 3, 64, 32), torch.randn(1, 2, 3072)
    mask = torch.tensor([[[True], [False]]])
    expected = slow_loss(pred, images, mask, 'L2', norm_pix=True, unit=32)
    assert head.loss(pred, images, mask).item() == pytest.approx(
        expected, rel=1e-5)


def test_only_masked_units_have_a_gradient():
    torch.manual_seed(0)
    head = build_head()
    images = torch.randn(2, 3, 24, 16)
    pred = torch.randn(2, 6, 192, requires_grad=True)
    mask = random_mask(2, (3, 2), 0.5)
    head.loss(pred, images, mask).backward()
    masked = mask.flatten(1)
    assert not pred.grad[~masked].any()
    expected = pred.detach() - head.construct_target(images)
    expected = 2 * expected[masked] / 192 / masked.sum()
    torch.testing.assert_close(pred.grad[masked], expected)


def test_constant_unit_has_a_finite_target():
    target = build_head().construct_target(torch.full((1, 3, 8, 8), 7.))
    assert target.isfinite().all() and target.abs().max() < 1e-2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('criterion', ['L1', 'L2'])
def test_loss_is_fp32_for_half_precision(dtype, criterion):
    """Also under autocast, and beyond the range of fp16."""
    torch.manual_seed(0)
    head = build_head(criterion, norm_pix=False)
    images = 100 * torch.randn(2, 3, 16, 16)
    pred = (300 * torch.randn(2, 4, 192)).to(dtype)
    mask = random_mask(1, (2, 2), 0.5)
    expected = slow_loss(pred.float(), images, mask, criterion, False)
    with torch.autocast('cpu', torch.bfloat16):
        actual = head.loss(pred, images, mask)
    assert actual.dtype == torch.float32
    assert actual.item() == pytest.approx(expected, rel=1e-5)
    assert head.loss(pred, images, mask).item() == actual.item()
    if criterion == 'L2':
        assert actual > torch.finfo(torch.float16).max


@pytest.mark.parametrize('pred_shape', [(2, 6, 191), (2, 5, 192), (1, 6, 192),
                                        (2, 6, 1)])
def test_refuses_predictions_that_do_not_fit(pred_shape):
    head, images = build_head(), torch.zeros(2, 3, 16, 24)
    with pytest.raises(ValueError, match='set the out_channels.*to 192'):
        head.loss(torch.zeros(pred_shape), images, random_mask(1, (2, 3), .5))
    with pytest.raises(ValueError, match='set the out_channels.*to 192'):
        head.to_images(torch.zeros(pred_shape), images)


def test_refuses_masks_and_images_that_do_not_fit():
    head, images = build_head(), torch.zeros(2, 3, 16, 24)
    pred = torch.zeros(2, 6, 192)
    with pytest.raises(ValueError, match=r'unit grid \(2, 3\)'):
        head.loss(pred, images, random_mask(1, (3, 2), .5))
    with pytest.raises(ValueError, match='1 mask for the batch or 2'):
        head.loss(pred, images, random_mask(3, (2, 3), .5))
    with pytest.raises(ValueError, match='multiples of the mask unit'):
        head.loss(pred, images[..., :20], random_mask(1, (2, 3), .5))


def test_target_equals_that_of_mae():
    """MMPretrain's head cuts square images alike, in the same order."""
    images = torch.randn(2, 3, 16, 16)
    mae = MODELS.build(
        dict(
            type='MAEPretrainHead',
            norm_pix=True,
            patch_size=8,
            loss=dict(type='PixelReconstructionLoss', criterion='L2')))
    expected = mae.construct_target(images)
    torch.testing.assert_close(build_head().construct_target(images), expected)
    assert torch.equal(patchify(images, 8), mae.patchify(images))
    assert isinstance(build_head(), GreenMIMHead)
