# Copyright (c) greenmim authors. All rights reserved.
"""JPEG by OpenCV against Pillow."""
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from greenmim.datasets.decoding import Decoder
from greenmim.datasets.decoding import decode as decode_module
from greenmim.datasets.sample_photographs import load_photograph


def photograph(name='chelsea', mode='RGB'):
    return Image.fromarray(load_photograph(name)).convert(mode)


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, 'JPEG', **options)
    return file.getvalue()


def both(content, channels=3, **options):
    """What each decoder makes of a file."""
    return [
        Decoder(channels, decoder=name, **options)(content)[0]
        for name in ('opencv', 'pillow')
    ]


@pytest.fixture
def opencv_decodes(monkeypatch):
    """How often OpenCV has decoded a file."""
    calls = []
    decode = cv2.imdecode

    def counted(*args):
        calls.append(args)
        return decode(*args)

    monkeypatch.setattr(cv2, 'imdecode', counted)
    return calls


@pytest.mark.parametrize('mode, channels, options', [
    ('RGB', 3, dict(quality=90)),
    ('RGB', 3, dict(quality=60, progressive=True)),
    ('RGB', 3, dict(subsampling=0)),
    ('RGB', 3, dict(subsampling=1, restart_marker_blocks=4)),
    ('L', 3, dict()),
    ('L', 1, dict()),
])
@pytest.mark.parametrize('min_side', [None, 290, 140, 75, 20])
def test_same_values(opencv_decodes, mode, channels, options, min_side):
    content = encoded(photograph(mode=mode), **options)
    fast, slow = both(content, channels, min_side=min_side)
    assert len(opencv_decodes) == 1
    assert fast.dtype == np.uint8 and fast.flags.writeable
    np.testing.assert_array_equal(fast, slow)


def with_orientation(number):
    exif = Image.Exif()
    exif[274] = number
    return exif


@pytest.mark.parametrize(
    'make, channels, by_opencv',
    [(lambda: encoded(photograph(), exif=with_orientation(6)), 3, False),
     (lambda: encoded(photograph(), exif=with_orientation(1)), 3, True),
     (lambda: encoded(photograph(), exif=b'Exif\0\0nonsense'), 3, True),
     (lambda: encoded(photograph(mode='CMYK')), 3, False),
     (lambda: encoded(photograph()), 1, False),
     (lambda: encoded(photograph()) + b'more', 3, False)],
    ids=['turned', 'upright', 'broken EXIF', 'CMYK', 'to grey', 'more bytes'])
def test_pillow_decodes_the_rest(opencv_decodes, make, channels, by_opencv):
    fast, slow = both(make(), channels)
    assert len(opencv_decodes) == by_opencv
    np.testing.assert_array_equal(fast, slow)


@pytest.mark.parametrize(
    'options', [
        dict(white_level=200),
        dict(nodata=0),
        dict(bands=(3, 2, 1)),
        dict(dtype='float32'),
    ],
    ids=str)
def test_options_are_left_to_the_rest(opencv_decodes, options):
    fast, slow = both(encoded(photograph()), **options)
    assert not opencv_decodes
    np.testing.assert_array_equal(fast, slow)


@pytest.mark.parametrize(
    'damage', [
        lambda content: content[:len(content) // 2],
        lambda content: content[:100],
        lambda content: content[:60] + b'\xff\xd9',
        lambda content: content[:300] + b'\xff\xd9',
    ],
    ids=['half', 'header', 'no data', 'tables'])
def test_damaged_files_keep_their_errors(damage):
    content = damage(encoded(photograph()))
    errors = []
    for name in 'opencv', 'pillow':
        with pytest.raises(Exception) as error:
            Decoder(3, decoder=name)(content)
        errors.append(str(error.value).split(' at 0x')[0])
    assert errors[0] == errors[1]


def test_what_opencv_refuses_is_tried_by_pillow(monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: None)
    fast, slow = both(encoded(photograph()))
    np.testing.assert_array_equal(fast, slow)


def test_pixels_are_counted_before_they_are_decoded(opencv_decodes):
    with pytest.raises(ValueError, match='max_pixels=1,000 pixels, got 135,3'):
        Decoder(3, max_pixels=1000)(encoded(photograph()))
    assert not opencv_decodes


def test_the_decoder_has_a_name():
    with pytest.raises(ValueError, match="'opencv' or 'pillow', got 'turbo'"):
        decode_module.Decoder(decoder='turbo')
