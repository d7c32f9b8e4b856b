# Copyright (c) greenmim authors. All rights reserved.
import numpy as np
import pytest
import skimage.data
import torch
from mmpretrain.models import SelfSupDataPreprocessor

from greenmim.visualization import (captions_of, error_remarks,
                                    reconstruction_columns)
from greenmim.visualization.reconstruction import GREY

SIZE = 96
NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


def photographs(channels=3):
    """Two photographs as a pipeline gives them: (2, C, 96, 96), BGR."""
    views = [
        photograph[100:100 + SIZE, 150:150 + SIZE]
        for photograph in (skimage.data.astronaut(), skimage.data.coffee())
    ]
    rgb = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
    return rgb.flip(1) if channels == 3 else rgb[:, :channels]


def result_of(pred, images, mask):
    return dict(
        pred=pred,
        target=images,
        drawn_target=images,
        mask=mask,
        known=images,
        drawn_known=images,
        naive=dict(mean=torch.zeros_like(images), smooth=images / 2),
        pred_is_image=True,
        pred_uses_neighbour_statistics=False)


def reconstruct(preprocessor, channels=3, perfect=False):
    """A result of the interface's form, and the mask as (B, H, W)."""
    images = preprocessor(
        dict(inputs=photographs(channels), data_samples=None))['inputs']
    mask = torch.zeros(2, 1, SIZE, SIZE, dtype=torch.bool)
    mask[0, :, 32:64, :64] = True
    mask[1, :, :, 64:] = True
    result = result_of(images if perfect else -images, images, mask)
    return result, mask[:, 0].numpy()


@pytest.mark.parametrize('options', [
    dict(**NORM, to_rgb=True),
    dict(**NORM, to_rgb=False),
    dict(to_rgb=True),
    dict(mean=[127.5], std=[127.5], to_rgb=True),
], ids=['rgb', 'bgr', 'not normalised', 'one mean'])  # yapf: disable
def test_colours_and_masks_are_right_to_the_pixel(options):
    preprocessor = SelfSupDataPreprocessor(**options)
    result, mask = reconstruct(preprocessor)
    part = reconstruction_columns(result, preprocessor)
    original = photographs().flip(1).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(part['input'], original)
    assert (part['masked'][mask] == GREY).all()
    assert np.array_equal(part['masked'][~mask], original[~mask])
    assert np.array_equal(part['paste'][~mask], original[~mask])
    assert np.array_equal(part['paste'][mask], part['reconstruction'][mask])
    assert not np.array_equal(part['reconstruction'][mask], original[mask])


def test_perfect_prediction_is_the_input():
    preprocessor = SelfSupDataPreprocessor(**NORM, to_rgb=True)
    result, _ = reconstruct(preprocessor, perfect=True)
    part = reconstruction_columns(result, preprocessor)
    assert np.array_equal(part['reconstruction'], part['input'])
    assert np.array_equal(part['paste'], part['input'])
    assert not part['error'].any()


def test_error_is_that_of_masked_pixels():
    preprocessor = SelfSupDataPreprocessor()
    images = torch.full((1, 3, SIZE, SIZE), 100.)
    mask = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    mask[..., :32] = True
    # Off by 64 levels on average, half of what is drawn white
    pred = images + torch.tensor([0., 96., -96.])[:, None, None]
    result = result_of(pred, images, mask)
    part = reconstruction_columns(result, preprocessor)
    assert (part['error'][:, :, :32] == [255, 128, 0]).all()
    assert not part['error'][:, :, 32:].any()


def test_bars_are_drawn_in_their_own_brightness():
    preprocessor = SelfSupDataPreprocessor(**NORM, to_rgb=True)
    result, mask = reconstruct(preprocessor)
    drawn = torch.zeros(2, 3, SIZE, SIZE)
    drawn[:, :, 40] = .5
    result.update(
        pred=drawn / 2,
        drawn_target=drawn,
        drawn_known=drawn,
        naive={},
        pred_is_image=False)
    part = reconstruction_columns(result, preprocessor)
    original = photographs().flip(1).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(part['input'], original)
    assert (part['target'][:, 40] == 255).all()
    assert (part['reconstruction'][:, 40] == 128).all()
    assert not part['reconstruction'][:, 41].any()
    assert np.array_equal(part['paste'][~mask], original[~mask])
    assert np.array_equal(part['paste'][mask], part['reconstruction'][mask])
    error = part['error'][:, 40]
    assert (error[mask[:, 40]] == [255, 255, 249]).all()  # 127 of 128 levels
    assert not error[~mask[:, 40]].any()


def test_captions():
    """What is guessed, and errors in units of the hidden variance."""
    images = torch.zeros(1, 3, SIZE, SIZE)
    images[..., ::2] = 2.
    mask = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    mask[..., :32] = True
    result = result_of(images - 1.5, images, mask)
    captions = captions_of(result)
    assert 'noise there is normal' in captions[0]
    assert captions[-1] == (
        'Mean over the images: error of masked pixels in units of their '
        'variance: 2.25 for the model, 2.00 for the mean of the visible '
        'pixels, 0.50 for a smooth interpolation.')
    assert error_remarks(result) == [captions[-1][22:-1]]
    result['pred_uses_neighbour_statistics'] = True
    assert 'guessed from the visible' in captions_of(result)[1]
    result.update(pred_is_image=False, naive={})
    assert 'bars' in captions_of(result)[1]
    assert captions_of(result)[-1].endswith('variance: 2.25 for the model.')


@pytest.mark.parametrize('channels', [1, 2])
def test_few_channels_are_grey(channels):
    preprocessor = SelfSupDataPreprocessor(mean=[127.5], std=[60.])
    result, _ = reconstruct(preprocessor, channels)
    part = reconstruction_columns(result, preprocessor)
    grey = photographs(channels)[:, 0].numpy()
    assert np.array_equal(part['input'], np.stack([grey] * 3, -1))
