# Copyright (c) greenmim authors. All rights reserved.
"""Files of kinds that a decoder easily ruins, in shared/cases."""
import numpy as np
import pytest
import tifffile

from greenmim.datasets.decoding import decode_image


@pytest.fixture
def cases(shared_folder):
    return shared_folder / 'cases'


def load(file, **options):
    return decode_image(file.read_bytes(), **options)


def on_scale(values, black, white):
    return ((values.astype(np.float64) - black) / (white - black) * 255).clip(
        0, 255)


def test_ct_hounsfield_int16(cases):
    values = np.load(cases / 'ct_hounsfield_int16.npy')
    image = load(
        cases / 'ct_hounsfield_int16.npy',
        channels=1,
        black_level=-1000,
        white_level=1000)
    assert abs(image - on_scale(values, -1000, 1000)).max() <= .5
    with pytest.raises(ValueError, match='-1000 to 1000.*channel_statistics'):
        load(cases / 'ct_hounsfield_int16.npy', channels=1)


def test_integers_int64(cases):
    values = np.load(cases / 'integers_int64.npy')
    assert np.array_equal(
        load(cases / 'integers_int64.npy', channels=1), values)


def test_rgb_12_of_16_bits(cases):
    import cv2
    values = cv2.imread(
        str(cases / 'rgb_12_of_16_bits.png'), cv2.IMREAD_UNCHANGED)
    assert values.max() == 4095
    image = load(cases / 'rgb_12_of_16_bits.png', white_level=4095)
    assert abs(image - on_scale(values, 0, 4095)).max() <= .5
    assert image.max() == 255


def test_three_bands_float32(cases):
    values = tifffile.imread(cases / 'three_bands_float32.tif')
    image = load(cases / 'three_bands_float32.tif')
    assert abs(image[..., ::-1] - on_scale(values, 0, 1)).max() <= .5


def test_reflectance_nodata(cases):
    values = tifffile.imread(cases / 'reflectance_nodata.tif')
    image = load(cases / 'reflectance_nodata.tif', channels=13, nodata=-9999)
    assert abs(image - on_scale(values, 0, 1)).max() <= .5
    assert (values == -9999).sum() in (1, 13)


def test_thermal_uint16(cases):
    values = tifffile.imread(cases / 'thermal_uint16.tif')
    image = load(
        cases / 'thermal_uint16.tif',
        channels=1,
        black_level=29000,
        white_level=30500)
    assert abs(image - on_scale(values, 29000, 30500)).max() <= .5
    assert image.min() == 0 and image.max() == 255


def test_rgb_and_near_infrared_marked_alpha(cases):
    name = 'rgb_and_near_infrared_marked_alpha.tif'
    values = tifffile.imread(cases / name)
    assert np.array_equal(load(cases / name)[..., ::-1], values[..., :3])
    assert np.array_equal(load(cases / name, channels=4), values)


def test_four_bands_lzw(cases):
    pytest.importorskip('imagecodecs')
    values = tifffile.imread(cases / 'four_bands_lzw.tif')
    image = load(cases / 'four_bands_lzw.tif', channels=4)
    assert image.shape == (256, 256, 4)
    assert np.array_equal(image, values)
