# Copyright (c) greenmim authors. All rights reserved.
import numpy as np
import pytest
import torch
from mmpretrain.models import SelfSupDataPreprocessor

from greenmim.visualization import ColourDisplay
from greenmim.visualization.display import heat_map, show_glyphs


def preprocess(images, **options):
    preprocessor = SelfSupDataPreprocessor(**options)
    data = preprocessor(dict(inputs=images, data_samples=None))
    return data['inputs'], preprocessor


@pytest.mark.parametrize('channels', [4, 13])
@pytest.mark.parametrize('bands', [None, (3, 2, 1)])
def test_bands_to_the_level(channels, bands):
    images = torch.randint(0, 256, (2, channels, 8, 8), dtype=torch.uint8)
    inputs, preprocessor = preprocess(images, mean=[77.], std=[33.])
    shown = ColourDisplay(inputs, preprocessor, bands)(inputs)
    expected = images[:, list(bands or (0, 1, 2))].permute(0, 2, 3, 1)
    assert np.array_equal(shown, expected.numpy())


def test_stretching_uses_the_reference_image_by_image():
    ramp = torch.arange(101.).repeat(1, 3, 1).view(1, 3, 1, 101)
    images = torch.cat([50 + ramp, 100 + ramp / 2])
    inputs, preprocessor = preprocess(
        images, mean=[10.] * 3, std=[5.] * 3, to_rgb=True)
    display = ColourDisplay(inputs, preprocessor, stretch=True)
    shown = display(inputs)
    assert (shown[:, 0, 2] == 0).all() and (shown[:, 0, 98] == 255).all()
    assert np.array_equal(shown[0], shown[1])
    # 96 levels take up the range of 255; this is one above the middle.
    assert display(inputs + 1 / 5)[0, 0, 50].tolist() == [130] * 3
    assert (display(inputs - 40.) == 0).all()


def test_flat_images_are_not_stretched_to_noise():
    inputs, preprocessor = preprocess(torch.full((1, 1, 4, 4), 7.))
    assert (ColourDisplay(inputs, preprocessor,
                          stretch=True)(inputs) == 0).all()


@pytest.mark.parametrize('channels, bands', [
    (3, (0, 1, 2)), (1, (0, 0, 0)), (4, (1, 2, 4)), (4, (0, 1)),
    (13, (-1, 0, 1))
])  # yapf: disable
def test_bands_that_are_not_there(channels, bands):
    with pytest.raises(ValueError, match=f'got bands .* of {channels}'):
        ColourDisplay(
            torch.zeros(1, channels, 4, 4), SelfSupDataPreprocessor(), bands)


def test_glyphs_are_grey_and_scaled_by_the_reference():
    reference = torch.zeros(2, 3, 2, 2)
    reference[0, :, 0, 0] = torch.tensor([.1, .2, .3])  # 0.2 on average
    reference[1, :, 1, 1] = .4
    shown = show_glyphs(reference, reference)
    assert (shown[0, 0, 0] == 255).all() and (shown[1, 1, 1] == 255).all()
    half = torch.full((2, 3, 2, 2), .1)
    shown = show_glyphs(half, reference)
    assert (shown[0] == 128).all() and (shown[1] == 64).all()
    assert (show_glyphs(-half, reference) == 0).all()


def test_heat():
    error = np.array([[[0, 128 / 3, 256 / 3, 128, 255, 64 / 3]]])
    assert heat_map(error)[0, 0].tolist() == [
        [0, 0, 0], [255, 0, 0], [255, 255, 0], [255] * 3, [255] * 3,
        [128, 0, 0]
    ]  # yapf: disable
