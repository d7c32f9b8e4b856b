# Copyright (c) greenmim authors. All rights reserved.
"""Every kind of image that a folder may hold, made by Pillow."""
from io import BytesIO

import numpy as np
import pytest
import tifffile
from mmengine.registry import TRANSFORMS
from PIL import Image

from greenmim.datasets import LoadImage, UnreadableImageError
from greenmim.datasets.transforms import decode_image

# A red and a blue half: wrong channel order and lost colours both show.
RGB = np.zeros((20, 30, 3), np.uint8)
RGB[:, :15, 0] = 200
RGB[:, 15:, 2] = 100
COLOUR = Image.fromarray(RGB)
GREY = COLOUR.convert('L')


def encode(image, format='PNG', **options):
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize('mode, format', [
    ('RGB', 'PNG'),
    ('RGB', 'JPEG'),
    ('RGB', 'TIFF'),
    ('RGB', 'WEBP'),
    ('RGB', 'BMP'),
    ('RGB', 'PPM'),
    ('RGB', 'GIF'),
    ('RGB', 'JPEG2000'),
    ('P', 'PNG'),
    ('RGBA', 'PNG'),
    ('RGBA', 'WEBP'),
    ('CMYK', 'JPEG'),
    ('CMYK', 'TIFF'),
    ('YCbCr', 'JPEG'),
])
def test_colour_becomes_bgr_and_grey(mode, format):
    options = dict(quality=100) if format in ('JPEG', 'WEBP') else {}
    image = COLOUR.quantize(8) if mode == 'P' else COLOUR.convert(mode)
    content = encode(image, format, **options)
    image = decode_image(content)
    assert image.shape == RGB.shape and image.dtype == np.uint8
    # Columns at the border of the halves bleed into each other in JPEG.
    inner = np.r_[0:12, 18:30]
    difference = image[:, inner, ::-1].astype(int) - RGB[:, inner]
    assert abs(difference).max() <= 8
    grey = decode_image(content, channels=1)
    assert grey.shape == RGB.shape[:2] and grey.dtype == np.uint8
    assert abs(grey[:, inner].astype(int) -
               np.asarray(GREY)[:, inner]).max() <= 8


@pytest.mark.parametrize('mode, format', [('L', 'PNG'), ('LA', 'PNG'),
                                          ('L', 'TIFF'), ('F', 'TIFF')])
def test_grey_becomes_three_equal_channels(mode, format):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    content = encode(Image.fromarray(pixels).convert(mode), format)
    assert np.array_equal(decode_image(content, channels=1), pixels)
    assert np.array_equal(
        decode_image(content), np.repeat(pixels[..., None], 3, -1))


def test_black_and_white_bitmap():
    pixels = np.eye(9, dtype=bool)
    content = encode(Image.fromarray(pixels))
    assert np.array_equal(decode_image(content, channels=1), pixels * 255)


@pytest.mark.parametrize('format', ['PNG', 'TIFF'])
def test_16_bit_is_scaled_and_not_clipped(format):
    pixels = np.array([[0, 257, 25700], [32768, 65278, 65535]], np.uint16)
    content = encode(Image.fromarray(pixels), format)
    expected = np.array([[0, 1, 100], [128, 254, 255]])
    assert np.array_equal(decode_image(content, channels=1), expected)
    assert np.array_equal(decode_image(content)[..., 2], expected)
    assert np.array_equal(
        decode_image(content, channels=1, white_level=25700),
        [[0, 3, 255], [255, 255, 255]])


def test_float_is_stretched_and_survives_nan():
    pixels = np.array([[-1., 0.], [1., np.nan]], np.float32)
    content = encode(Image.fromarray(pixels), 'TIFF')
    assert np.array_equal(
        decode_image(content, channels=1), [[0, 128], [255, 128]])
    flat = encode(Image.fromarray(np.ones((2, 2), np.float32)), 'TIFF')
    assert not decode_image(flat, channels=1).any()


def test_transparency_is_laid_over_white():
    pixels = np.zeros((4, 4, 4), np.uint8)  # black, but nothing of it shows
    pixels[0, 0] = (10, 20, 30, 255)
    image = decode_image(encode(Image.fromarray(pixels)))
    assert image[0, 0].tolist() == [30, 20, 10]
    assert (image[1:] == 255).all()
    palette = Image.fromarray(np.eye(4, dtype=np.uint8)).convert('P')
    palette.putpalette([255, 0, 0, 0, 0, 255])
    image = decode_image(encode(palette, transparency=0))
    assert image[0, 0].tolist() == [255, 0, 0]  # blue
    assert image[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize('format', ['GIF', 'PNG', 'WEBP', 'TIFF'])
def test_animation_gives_its_first_frame(format):
    frames = [Image.new('RGB', (8, 8), c) for c in ('red', 'lime', 'blue')]
    options = dict(lossless=True) if format == 'WEBP' else {}
    content = encode(
        frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert decode_image(content)[0, 0].tolist() == [0, 0, 255]


def test_orientation_is_respected_and_broken_metadata_is_not_fatal():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    image = decode_image(encode(COLOUR, 'JPEG', quality=100, exif=exif))
    assert image.shape == (30, 20, 3)
    assert abs(image[5, 10].astype(int) - [0, 0, 200]).max() <= 8  # red above
    content = encode(COLOUR, 'JPEG', exif=b'Exif\0\0no metadata at all')
    assert decode_image(content).shape == (20, 30, 3)


def test_min_side_reduces_jpeg_but_never_below():
    large = Image.new('RGB', (1000, 600))
    shapes = {
        side: decode_image(encode(large, 'JPEG'), min_side=side).shape[:2]
        for side in (None, 601, 300, 150, 75, 10)
    }
    assert shapes == {
        None: (600, 1000),
        601: (600, 1000),
        300: (300, 500),
        150: (150, 250),
        75: (75, 125),
        10: (75, 125)
    }
    assert decode_image(encode(large), min_side=10).shape == (600, 1000, 3)


def test_bands_beyond_colour():
    bands = np.random.default_rng(0).integers(0, 65536, (6, 7, 5), np.uint16)
    expected = (bands / 257).round().astype(np.uint8)
    for content in (bands, bands.transpose(2, 0, 1)):
        buffer = BytesIO()
        tifffile.imwrite(buffer, content, photometric='minisblack')
        image = decode_image(buffer.getvalue(), channels=5)
        assert np.array_equal(image, expected)
        with pytest.raises(ValueError, match='expected 4 bands'):
            decode_image(buffer.getvalue(), channels=4)
    rgba = np.random.default_rng(0).integers(0, 256, (6, 7, 4), np.uint8)
    content = encode(Image.fromarray(rgba))
    assert np.array_equal(decode_image(content, channels=4), rgba)
    with pytest.raises(ValueError, match=r'expected 5 .* \(6, 7, 4\)'):
        decode_image(content, channels=5)


PNG, JPEG, GIF = (encode(COLOUR, format) for format in ('PNG', 'JPEG', 'GIF'))


@pytest.mark.parametrize('content, reason', [
    (b'', 'empty'),
    (b'no image', 'no known image format'),
    (PNG[:8], 'no known image format'),
    (PNG[:len(PNG) // 2], 'truncated'),
    (JPEG[:-40], 'truncated'),
    (GIF[:len(GIF) // 2], 'truncated'),
    (encode(COLOUR, 'TIFF')[:-200], 'truncated'),
    (encode(COLOUR, 'WEBP')[:-10], 'decoder'),
])
def test_unreadable_files_say_which_and_why(content, reason, tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason) as info:
        LoadImage()(dict(img_path=str(path)))
    assert str(path) in str(info.value)


def test_missing_file_and_decompression_bomb(tmp_path, monkeypatch):
    with pytest.raises(UnreadableImageError, match='No such file'):
        LoadImage()(dict(img_path=str(tmp_path / 'gone.png')))
    path = tmp_path / 'bomb.png'
    path.write_bytes(PNG)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(UnreadableImageError, match='decompression bomb'):
        LoadImage()(dict(img_path=str(path)))


def test_transform_gives_what_the_pipeline_expects(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(PNG)
    transform = TRANSFORMS.build(dict(type='greenmim.LoadImage'))
    results = transform(dict(img_path=str(path)))
    assert results['img_shape'] == results['ori_shape'] == (20, 30)
    assert np.array_equal(results['img'], RGB[..., ::-1])
    assert results['img'].flags.c_contiguous
    assert 'channels=3' in repr(transform)


@pytest.mark.parametrize('options, message', [
    (dict(channels=0), 'channels.*positive.*got 0'),
    (dict(white_level=70000), r'white_level.*\[1, 65535\].*got 70000'),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LoadImage(**options)
