# Copyright (c) greenmim authors. All rights reserved.
"""Every kind of image that a folder may hold, made by Pillow."""
import pickle
import warnings
from io import BytesIO
from multiprocessing.reduction import ForkingPickler

import cv2
import numpy as np
import pytest
import tifffile
from mmengine.registry import TRANSFORMS
from PIL import Image

from greenmim.datasets import LoadImage, UnreadableImageError
from greenmim.datasets.decoding import decode_image

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
                                          ('L', 'TIFF')])
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


def test_missing_file_and_too_many_pixels(tmp_path):
    with pytest.raises(UnreadableImageError, match='No such file'):
        LoadImage()(dict(img_path=str(tmp_path / 'gone.png')))
    path = tmp_path / 'large.png'
    path.write_bytes(PNG)
    LoadImage(max_pixels=600)(dict(img_path=str(path)))
    with pytest.raises(UnreadableImageError, match='max_pixels=599.*got 600'):
        LoadImage(max_pixels=599)(dict(img_path=str(path)))


def test_max_pixels_counts_what_is_decoded(monkeypatch):
    """Neither the pixels that min_side saves, nor Pillow's own limit."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    content = encode(Image.new('RGB', (1000, 600)), 'JPEG')
    options = dict(max_pixels=50_000)
    with pytest.raises(ValueError, match='got 600,000; .*min_side'):
        decode_image(content, **options)
    image = decode_image(content, min_side=150, **options)
    assert image.shape == (150, 250, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


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
    (dict(bands=(1, 2)), 'bands for 3 channels.*got'),
    (dict(bands=(0, 1, 2)), 'counted from 1'),
    (dict(black_level=5, white_level=5), 'black_level < white_level'),
    (dict(white_level=(1, 2)), 'white_level.*each of 3 channels'),
    (dict(white_level='min'), "white_level.*'max', got 'min'"),
    (dict(alpha='black'), "'white' or 'ignore', got 'black'"),
    (dict(dtype='float16'), "'uint8' or 'float32', got 'float16'"),
    (dict(max_pixels=0), 'max_pixels.*got 0'),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LoadImage(**options)


def test_few_levels_are_warned_of_once_in_all_workers(tmp_path):
    for i in range(4):
        np.save(tmp_path / f'{i}.npy', np.full((4, 4), 20 + i, np.uint16))
    load = LoadImage(channels=1)
    copy = pickle.loads(ForkingPickler.dumps(load))  # as a worker gets it
    path = str(tmp_path / '0.npy')
    with pytest.warns(UserWarning, match='0.npy uses 1 of 256 levels'):
        copy(dict(img_path=path))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load(dict(img_path=path))
        flat = tmp_path / 'flat.png'
        Image.new('L', (9, 9)).save(flat)  # of 8 bits, as it is
        LoadImage(channels=1)(dict(img_path=str(flat)))


def test_opacity_is_ignored_or_laid_over_white():
    pixels = np.full((4, 5, 4), 100, np.uint8)
    pixels[..., 3] = 51
    png = encode(Image.fromarray(pixels))
    tiff = encode(Image.fromarray(pixels), 'TIFF')
    over_white = 100 * .2 + 255 * .8
    for content, default in ((png, over_white), (tiff, 100)):
        assert abs(decode_image(content) - default).max() <= 1
        assert (decode_image(content, alpha='ignore') == 100).all()
        image = decode_image(content, alpha='white')
        assert abs(image - over_white).max() <= 1
    wide = np.full((64, 64, 4), 257 * 100, np.uint16)
    wide[..., 3] = 13107
    content = cv2.imencode('.png', wide)[1].tobytes()
    assert abs(decode_image(content) - over_white).max() <= 1
    assert (decode_image(content, alpha='ignore') == 100).all()
