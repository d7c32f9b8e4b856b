# Copyright (c) greenmim authors. All rights reserved.
"""Every number type in every kind of file: right values, or an error.

The slow twin of the decoder is :func:`expected`: one value at a time, by the
words of the documentation.
"""
import subprocess
import sys
from io import BytesIO

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from greenmim.datasets.decoding import decode_image

H, W = 48, 64
DTYPES = [
    'bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32',
    'float16', 'float32', 'float64'
]
# Values that fit without a range, and a range for the others.
FREE = dict(bool=1, uint8=255, uint16=65535, int8=127)
RANGES = dict(
    bool=(0, 1),
    int8=(-100, 100),
    int16=(-1000, 3000),
    int32=(-70000, 1_000_000),
    int64=(-2**40, 2**41),
    uint8=(10, 200),
    uint16=(100, 4095),
    uint32=(0, 4_000_000_000),
    float16=(-25.5, 3.25),
    float32=(-1e-3, 1.5e-3),
    float64=(1e10, 1e10 + 1))


def random_pixels(dtype, channels, low, high):
    rng = np.random.default_rng(channels)
    if dtype == 'bool':
        return rng.integers(0, 2, (H, W, channels)).astype(bool)
    values = low + rng.random((H, W, channels)) * (high - low)
    return values.astype(dtype)


def save_npy(pixels):
    buffer = BytesIO()
    np.save(buffer, pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return buffer.getvalue()


def save_tiff(pixels, planar=False, paged=False, **options):
    buffer = BytesIO()
    channels = pixels.shape[-1]
    if channels == 1:
        pixels = pixels[..., 0]
    elif planar or paged:
        pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    photometric = 'rgb' if channels in (3, 4) else 'minisblack'
    if paged:
        photometric = 'minisblack'
    elif channels > 1:
        options['planarconfig'] = 'separate' if planar else 'contig'
    tifffile.imwrite(buffer, pixels, photometric=photometric, **options)
    return buffer.getvalue()


def save_by_opencv(kind):

    def save(pixels):
        channels = pixels.shape[-1]
        if channels >= 3:
            pixels = pixels[..., [2, 1, 0, 3][:channels]]
        options = []
        if kind == '.jp2':
            options = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
        return cv2.imencode(kind, pixels, options)[1].tobytes()

    return save


def save_webp(pixels):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, 'WEBP', lossless=True, exact=True)
    return buffer.getvalue()


def save_heic(pixels):
    pillow_heif = pytest.importorskip('pillow_heif')
    buffer = BytesIO()
    mode = {1: 'L', 3: 'RGB', 4: 'RGBA'}[pixels.shape[-1]]
    # Lossy: of smooth pixels little is lost.
    file = pillow_heif.from_bytes(mode, (W, H), pixels.tobytes())
    file.save(buffer, quality=-1, chroma=444, matrix_coefficients=0)
    return buffer.getvalue()


def save_jpeg_2000_of_many(pixels):
    return pytest.importorskip('imagecodecs').jpeg2k_encode(pixels, level=0)


ALL, PICTURES = (1, 3, 4, 13), (1, 3, 4)
NUMBERS = [name for name in DTYPES if name != 'bool']
CONTAINERS = {
    'npy': (save_npy, DTYPES, ALL),
    'tiff interleaved': (save_tiff, NUMBERS, ALL),
    'tiff bilevel': (save_tiff, ['bool'], (1, )),
    'tiff planar':
    (lambda pixels: save_tiff(pixels, planar=True), NUMBERS, (3, 4, 13)),
    'tiff paged':
    (lambda pixels: save_tiff(pixels, paged=True), NUMBERS, (3, 4, 13)),
    'tiff tiled':
    (lambda pixels: save_tiff(pixels, tile=(16, 16)), NUMBERS, ALL),
    'tiff lzw': (lambda pixels: save_tiff(pixels, compression='lzw'), NUMBERS,
                 ALL),
    'tiff deflate':
    (lambda pixels: save_tiff(pixels, compression='zlib', predictor=True),
     [name for name in NUMBERS if name not in ('float16', 'int64')], ALL),
    'png': (save_by_opencv('.png'), ['uint8', 'uint16'], PICTURES),
    'jpeg 2000': (save_by_opencv('.jp2'), ['uint8', 'uint16'], PICTURES),
    'jpeg 2000 of many bands': (save_jpeg_2000_of_many, ['uint16'], (13, )),
    'webp': (save_webp, ['uint8'], (3, 4)),
    'heic': (save_heic, ['uint8'], (3, )),
}
CASES = [(container, dtype, channels)
         for container, (_, dtypes, numbers) in CONTAINERS.items()
         for dtype in dtypes for channels in numbers]


def expected(pixels, low, high):
    """Levels of values on the scale from low to high, value by value."""
    levels = [
        min(max((float(value) - low) / (high - low) * 255, 0), 255)
        for value in pixels.ravel().tolist()
    ]
    return np.reshape(levels, pixels.shape)


def file_order(image):
    """The channels of a decoded image as they are in the file."""
    if image.ndim == 2:
        return image[..., None]
    return image[..., ::-1] if image.shape[-1] == 3 else image


@pytest.mark.parametrize('container, dtype, channels', CASES)
def test_values_on_a_given_range(container, dtype, channels):
    low, high = RANGES[dtype]
    spread = high - low
    if dtype == 'bool' or dtype == 'uint32':
        spread = 0  # nothing is outside
    pixels = random_pixels(dtype, channels, low - spread / 100,
                           high + spread / 100)
    content = CONTAINERS[container][0](pixels)
    levels = expected(pixels, low, high)
    options = dict(channels=channels, black_level=low, white_level=high)
    image = file_order(decode_image(content, **options))
    assert image.dtype == np.uint8
    assert abs(image - levels).max() <= 1
    precise = file_order(decode_image(content, dtype='float32', **options))
    assert precise.dtype == np.float32
    assert abs(precise - levels).max() <= (1 if container == 'heic' else 2e-3)


@pytest.mark.parametrize('container, dtype, channels', CASES)
def test_values_without_a_range(container, dtype, channels):
    limit = 1 if dtype.startswith('float') else FREE.get(dtype, 255)
    pixels = random_pixels(dtype, channels, 0, limit)
    content = CONTAINERS[container][0](pixels)
    scale = 255 if dtype in ('int8', 'int16') or limit == 255 else limit
    image = file_order(decode_image(content, channels=channels))
    assert abs(image - expected(pixels, 0, scale)).max() <= 1
    if dtype in ('bool', 'uint8', 'uint16'):
        return  # whatever they hold fits
    beyond = random_pixels(dtype, channels, 0, 100)
    beyond[0, 0, 0] = 1.5 if dtype.startswith('float') else -1 \
        if dtype.startswith('int') else 256
    content = CONTAINERS[container][0](beyond)
    with pytest.raises(
            ValueError,
            match=f'of {dtype} without a range.*black_level and white_level'):
        decode_image(content, channels=channels)


@pytest.mark.parametrize('dtype', DTYPES)
@given(data=st.data())
def test_any_values_and_any_range(dtype, data):
    pixels = data.draw(arrays(dtype, (3, 4, 2)))
    numbers = st.floats(-1e4, 1e4, width=16)
    low = data.draw(numbers)
    high = low + data.draw(st.floats(.5, 1e4, width=16))
    image = decode_image(
        save_npy(pixels),
        channels=2,
        black_level=low,
        white_level=high,
        dtype='float32')
    wide = pixels.astype(np.float64)
    levels = expected(np.where(np.isfinite(wide), wide, low), low, high)
    assert abs(image - levels).max() <= .05


@pytest.mark.parametrize('nodata', [-9999, float('nan'), float('inf')])
@pytest.mark.parametrize('save', [save_npy, save_tiff])
def test_no_data_is_black_and_does_not_count(save, nodata):
    pixels = random_pixels('float32', 13, 0, 1)
    whole = decode_image(save(pixels), channels=13)
    pixels[5, 7, 2] = nodata
    image = decode_image(
        save(pixels), channels=13, nodata=None if nodata != -9999 else -9999)
    assert image[5, 7, 2] == 0
    whole[5, 7, 2] = 0
    assert np.array_equal(image, whole)


def test_no_data_that_the_file_names():
    pixels = random_pixels('int16', 1, 0, 255)
    pixels[3, 4] = -32768
    content = save_tiff(pixels, extratags=[(42113, 's', 0, '-32768', True)])
    image = decode_image(content, channels=1)
    assert image[3, 4] == 0
    assert np.array_equal(image[0], pixels[0, :, 0])


def test_no_data_where_a_range_starts_above_it():
    pixels = np.array([[-100, 0, 100]], np.int16)
    image = decode_image(
        save_npy(pixels),
        channels=1,
        black_level=-200,
        white_level=100,
        nodata=-100)
    assert image.tolist() == [[0, 170, 255]]


def test_every_channel_has_a_range_in_the_order_of_bands():
    pixels = np.stack([np.full((8, 9), value) for value in (10, 100, 1000)],
                      -1).astype(np.int32)
    image = decode_image(
        save_npy(pixels),
        channels=2,
        bands=(3, 1),
        black_level=(0, 0),
        white_level=(2000, 20))
    assert image[0, 0].tolist() == [128, 128]
    image = decode_image(
        save_npy(pixels),
        bands=(3, 2, 1),
        black_level=0,
        white_level=(1000, 200, 100))
    assert image[0, 0].tolist() == [26, 128, 255]  # BGR
    # Grey becomes three channels, of a range each.
    image = decode_image(
        save_npy(pixels[..., 1]), black_level=0, white_level=(1000, 200, 100))
    assert image[0, 0].tolist() == [255, 128, 26]


@pytest.mark.parametrize('save', [save_npy, save_tiff])
def test_bands_of_files_with_more(save):
    pixels = random_pixels('uint8', 13, 0, 255)
    image = decode_image(save(pixels), bands=(4, 3, 2))
    assert np.array_equal(image[..., ::-1], pixels[..., [3, 2, 1]])
    grey = decode_image(save(pixels), channels=1, bands=(8, ))
    assert np.array_equal(grey, pixels[..., 7])
    with pytest.raises(ValueError, match=r'bands \[14\].*13 bands'):
        decode_image(save(pixels), channels=1, bands=(14, ))
    with pytest.raises(ValueError, match='expected 3 bands.*bands='):
        decode_image(save(pixels))


def test_colour_of_many_bits_becomes_grey():
    pixels = random_pixels('uint16', 3, 0, 65535)
    grey = decode_image(save_tiff(pixels), channels=1)
    weighted = pixels @ [.299, .587, .114] / 257
    assert abs(grey - weighted).max() <= 1
    one = random_pixels('uint16', 1, 0, 65535)
    colour = decode_image(save_tiff(one))
    assert colour.shape == (H, W, 3)
    assert np.array_equal(colour[..., 0], colour[..., 2])


def test_black_is_zero_in_either_photometry():
    pixels = random_pixels('uint16', 1, 0, 65535)
    inverted = save_tiff(pixels)
    buffer = BytesIO()
    tifffile.imwrite(buffer, 65535 - pixels[..., 0], photometric='miniswhite')
    assert np.array_equal(
        decode_image(buffer.getvalue(), channels=1),
        decode_image(inverted, channels=1))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_of_tiff_is_that_of_pillow(orientation):
    pixels = random_pixels('uint8', 3, 0, 255)
    content = save_tiff(pixels, extratags=[(274, 'H', 1, orientation, True)])
    exif = Image.Exif()
    exif[274] = orientation
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG', exif=exif)
    assert np.array_equal(
        decode_image(content), decode_image(buffer.getvalue()))


def test_stretch_of_each_image_by_name_alone():
    pixels = np.array([[-3., 0.], [5., np.nan]])
    with pytest.raises(ValueError, match='-3 to 5'):
        decode_image(save_npy(pixels), channels=1)
    image = decode_image(
        save_npy(pixels), channels=1, black_level='min', white_level='max')
    assert image.tolist() == [[0, 96], [255, 0]]
    flat = decode_image(
        save_npy(np.ones((2, 2))),
        channels=1,
        black_level='min',
        white_level='max')
    assert not flat.any()


@pytest.mark.parametrize(
    'container, dtype, channels',
    [(container, dtypes[-1], numbers[-1])
     for container, (_, dtypes, numbers) in CONTAINERS.items()])
def test_half_a_file_is_an_error(container, dtype, channels):
    low, high = RANGES[dtype]
    pixels = random_pixels(dtype, channels, low, high)
    content = CONTAINERS[container][0](pixels)
    options = dict(channels=channels, black_level=low, white_level=high)
    decode_image(content, **options)
    with pytest.raises(Exception):
        decode_image(content[:len(content) // 2], **options)


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from greenmim.datasets.decoding import decode_image
try:
    with open(sys.argv[2], 'rb') as file:
        decode_image(file.read(), int(sys.argv[3]), white_level=9)
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize('package, container, channels', [
    ('imagecodecs', 'tiff lzw', 4),
    ('imagecodecs', 'jpeg 2000 of many bands', 13),
    ('pillow_heif', 'heic', 3),
])
def test_missing_extra_is_named(package, container, channels, tmp_path):
    pytest.importorskip(package)
    dtype = CONTAINERS[container][1][-1]
    content = CONTAINERS[container][0](random_pixels(dtype, channels, 0, 1))
    file = tmp_path / 'image'
    file.write_bytes(content)
    run = subprocess.run(
        [sys.executable, '-c', WITHOUT, package,
         str(file),
         str(channels)],
        capture_output=True,
        text=True,
        check=True)
    assert f'pip install {package.replace("_", "-")}' in run.stdout
