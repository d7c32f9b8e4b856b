# Copyright (c) greenmim authors. All rights reserved.
"""Files whose headers say how to read their numbers, and odd options."""
import struct
import sys
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from greenmim.datasets.decoding import Decoder, decode_image

H, W = 20, 28
RNG = np.random.default_rng(0)
GREY_16 = RNG.integers(0, 65536, (H, W), dtype=np.uint16)
RGB_16 = RNG.integers(0, 65536, (H, W, 3), dtype=np.uint16)
RGB_8 = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY_8 = RGB_8[..., 0]
RGBA_8 = RNG.integers(0, 256, (H, W, 4), dtype=np.uint8)
UNIT = RNG.random((H, W), np.float32)
CT = RNG.integers(-1000, 1000, (H, W)).astype(np.int16)
OPACITY = RGBA_8[..., 3:] / 255
MANY = RNG.integers(0, 256, (6, 6, 40), dtype=np.uint8)
BITS = [1, 2, 4, 8, 10, 12, 14, 16]


def packed(bits):
    kind = bool if bits == 1 else np.uint8 if bits <= 8 else np.uint16
    return RNG.integers(0, 2**bits, (H, W)).astype(kind)


def tiff(pixels, *more, **options):
    buffer = BytesIO()
    with tifffile.TiffWriter(
            buffer,
            bigtiff=options.pop('bigtiff', False),
            byteorder=options.pop('byteorder', '<')) as file:
        file.write(pixels, **options)
        for page, page_options in more:
            file.write(page, **page_options)
    return buffer.getvalue()


def by_pillow(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(pixels):
    buffer = BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def chunk(name, content):
    checksum = struct.pack('>I', zlib.crc32(name + content))
    return struct.pack('>I', len(content)) + name + content + checksum


def png_16(pixels, extra=b'', interlaced=False):
    """PNG of 16 bits, by its specification."""
    height, width, channels = np.atleast_3d(pixels).shape
    rows = [pixels]
    if interlaced:  # Adam7
        rows = [
            pixels[y::dy, x::dx]
            for y, x, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4),
                                 (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2,
                                                              2), (1, 0, 2, 1))
        ]
    data = b''.join(b'\0' + row.astype('>u2').tobytes() for part in rows
                    for row in part)
    kind = {1: 0, 3: 2}[channels]
    header = struct.pack('>IIBBBBB', width, height, 16, kind, 0, 0, interlaced)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + extra + chunk(
        b'IDAT', zlib.compress(data)) + chunk(b'IEND', b'')


def exif(orientation):
    found = Image.Exif()
    found[274] = orientation
    return chunk(b'eXIf', found.tobytes().replace(b'Exif\0\0', b''))


def netpbm(pixels, largest):
    kind = b'P6' if pixels.ndim == 3 else b'P5'
    return b'%s\n# made\n%d %d\n%d\n' % (kind, W, H, largest) + pixels.astype(
        '>u2').tobytes()


def over_white(levels, opaque):
    return np.where(opaque, levels, 255)


NODATA = (np.float32(-3.4028234663852886e+38), '-3.4028234663852886e+38')
WITH_NODATA = np.where(UNIT < .1, NODATA[0], UNIT)
GEO = [(42113, 's', 0, NODATA[1], True)]
PALETTE = Image.fromarray(RGB_8).convert('P', palette=Image.Palette.ADAPTIVE)
CMYK = Image.new('CMYK', (W, H), (200, 30, 10, 50))
MULTIPLIED = RGBA_8.copy()
MULTIPLIED[..., :3] = (RGBA_8[..., :3] * OPACITY).round()

# Name: content, right levels (red first), options.
FILES = {
    'PNG 16, interlaced': (png_16(RGB_16, interlaced=True), RGB_16 / 257, {}),
    'PNG 16, a transparent colour':
    (png_16(RGB_16, chunk(b'tRNS', RGB_16[3, 4].astype('>u2').tobytes())),
     over_white(RGB_16 / 257, (RGB_16 != RGB_16[3, 4]).any(-1)[...,
                                                               None]), {}),
    'PNG 16, a transparent grey':
    (png_16(GREY_16, chunk(b'tRNS', GREY_16[3:4, 4].astype('>u2').tobytes())),
     over_white(GREY_16 / 257, GREY_16 != GREY_16[3, 4]), {}),
    'PNG 16, colour turned': (png_16(RGB_16,
                                     exif(6)), np.rot90(RGB_16, -1) / 257, {}),
    'PNG 16, grey turned': (png_16(GREY_16,
                                   exif(8)), np.rot90(GREY_16) / 257, {}),
    'PNG palette': (by_pillow(PALETTE,
                              'PNG'), np.asarray(PALETTE.convert('RGB')), {}),
    'TIFF palette': (by_pillow(PALETTE, 'TIFF'),
                     np.asarray(PALETTE.convert('RGB')), {}),
    'PGM of 12 bits': (netpbm(GREY_16 // 16,
                              4095), GREY_16 // 16 / 4095 * 255, {}),
    'PGM of small values': (netpbm(GREY_16 % 200,
                                   65535), GREY_16 % 200 / 257, {}),
    'PPM of 16 bits, a range':
    (netpbm(RGB_16, 65535), (RGB_16 / 4095 * 255).clip(0, 255),
     dict(white_level=4095, dtype='float32')),
    'PPM of 12 bits': (netpbm(RGB_16 // 16, 4095), RGB_16 // 16 / 4095 * 255,
                       dict(dtype='float32')),
    'TIFF, first a small copy': (tiff(
        RGB_8[::4, ::4].copy(), (RGB_8, dict(photometric='rgb')),
        photometric='rgb',
        subfiletype=1), RGB_8, {}),
    'TIFF, then a small copy':
    (tiff(GREY_8, (GREY_8[::4, ::4].copy(), dict(subfiletype=1))), GREY_8, {}),
    'TIFF of more pages than rows': (tiff(MANY.transpose(2, 0,
                                                         1).copy()), MANY,
                                     dict(channels=40)),
    'BigTIFF': (tiff(GREY_16, bigtiff=True, byteorder='>'), GREY_16 / 257, {}),
    'TIFF float16': (tiff(UNIT.astype(np.float16)), UNIT * 255, {}),
    'TIFF CMYK': (by_pillow(CMYK,
                            'TIFF'), np.asarray(CMYK.convert('RGB')), {}),
    'JPEG CMYK': (by_pillow(CMYK, 'JPEG', quality=100, subsampling=0),
                  np.asarray(CMYK.convert('RGB')), {}),
    'TIFF, opacity multiplied':
    (tiff(MULTIPLIED, photometric='rgb', extrasamples=['assocalpha']),
     RGBA_8[..., :3] * OPACITY + 255 * (1 - OPACITY), dict(alpha='white')),
    'TIFF no data at the end of floats': (tiff(WITH_NODATA, extratags=GEO),
                                          np.where(UNIT < .1, 0,
                                                   UNIT * 255), {}),
    'TIFF no data written as a fraction':
    (tiff(CT, extratags=[(42113, 's', 0, f'{CT[0, 0]}.0', True)]),
     np.where(CT == CT[0, 0], 0, (CT + 1000) / 2000 * 255),
     dict(black_level=-1000, white_level=1000)),
    'TIFF no data that its numbers cannot be':
    (tiff(GREY_8, extratags=[(42113, 's', 0, '-9999', True)]), GREY_8, {}),
    'TIFF no data that is no number':
    (tiff(GREY_8, extratags=[(42113, 's', 0, 'none', True)]), GREY_8, {}),
    'TIFF no data where white is zero': (tiff(
        GREY_8,
        photometric='miniswhite',
        extratags=[(42113, 's', 0, f'{GREY_8[0, 0]}', True)]),
                                         np.where(GREY_8 == GREY_8[0, 0], 0,
                                                  255 - GREY_8), {}),
    'IM of floats': (by_pillow(Image.fromarray(UNIT), 'IM'), UNIT * 255, {}),
    'NPY above a black level': (npy(RGB_8),
                                ((RGB_8 - 50.) / 205 * 255).clip(0),
                                dict(black_level=50)),
    'NPY big-endian': (npy(GREY_16.astype('>u2')), GREY_16 / 257, {}),
    'NPY of more bands than rows': (npy(MANY), MANY, dict(channels=40)),
    'NPY of more bands than rows, first': (npy(MANY.transpose(2, 0, 1)), MANY,
                                           dict(channels=40)),
    'NPY without data': (npy(np.full((H, W), np.nan)), np.zeros((H, W)), {}),
}


def decoded(content, channels, **options):
    """With red first and an axis for one channel."""
    image = decode_image(content, channels, **options)
    return image[..., ::-1] if channels == 3 else np.atleast_3d(image)


@pytest.mark.parametrize('name', FILES)
def test_right_values(name):
    content, levels, options = FILES[name]
    levels = np.atleast_3d(levels)
    options = dict(dict(channels=levels.shape[-1]), **options)
    image = decoded(content, **options)
    assert image.shape == levels.shape
    assert abs(image - levels).max() <= (.01 if options.get('dtype')
                                         == 'float32' else 1)


@pytest.mark.parametrize('white_is_zero', [False, True])
@pytest.mark.parametrize('bits', BITS)
def test_tiff_of_any_bits(bits, white_is_zero):
    """Their full scale is that of the bits, whatever type holds them."""
    if bits not in (1, 8, 16):
        pytest.importorskip('imagecodecs')
    pixels = packed(bits)
    options = {} if bits in (1, 8, 16) else dict(bitspersample=bits)
    content = tiff(
        pixels,
        photometric='miniswhite' if white_is_zero else 'minisblack',
        **options)
    levels = pixels / (2**bits - 1) * 255
    levels = 255 - levels if white_is_zero else levels
    assert abs(decode_image(content, 1) - levels).max() <= 1
    half = decode_image(content, 1, white_level=2**bits / 2, dtype='float32')
    levels = (pixels / (2**bits / 2) * 255).clip(0, 255)
    levels = 255 - levels if white_is_zero else levels
    assert abs(half - levels).max() <= .01


@pytest.mark.parametrize('pixels, options', [
    (CT, dict(black_level=-1000, white_level=1000)),
    (UNIT, {}),
])
def test_white_is_zero_of_other_numbers(pixels, options):
    white = tiff(pixels, photometric='miniswhite')
    black = tiff(pixels, photometric='minisblack')
    levels = [
        decode_image(f, 1, dtype='float32', **options) for f in (black, white)
    ]
    np.testing.assert_allclose(levels[0], 255 - levels[1], atol=1e-3)


def test_jpeg_2000_of_12_bits():
    codec = pytest.importorskip('imagecodecs')
    pixels = GREY_16 // 16
    content = codec.jpeg2k_encode(pixels, level=0, bitspersample=12)
    assert abs(decode_image(content, 1) - pixels / 4095 * 255).max() <= 1
    half = decode_image(content, 1, white_level=2000)
    assert abs(half - (pixels / 2000 * 255).clip(0, 255)).max() <= 1


@pytest.mark.parametrize('content, message', [
    (tiff(UNIT.astype(np.complex64)), 'real numbers.*complex64.*magnitude'),
    (npy(UNIT.astype(np.complex64)), 'complex64'),
    (npy(np.zeros((0, 5))), 'a pixel or more'),
    (npy(np.zeros((5, 5, 0))), 'a pixel or more'),
    (npy(np.zeros(5)), r'\(H, W\)'),
])
def test_pixels_that_are_no_image(content, message):
    with pytest.raises(ValueError, match=message):
        decode_image(content, 1, white_level=1)


@pytest.mark.parametrize('content', [
    netpbm(GREY_16, 65535)[:100],
    png_16(GREY_16).replace(zlib.compress(b'')[:2], b'\0\0', 1),
])
def test_damage_that_opencv_finds(content):
    with pytest.raises(ValueError, match='image file is damaged'):
        decode_image(content, 1)


def test_without_imagecodecs(monkeypatch):
    """Pillow and OpenCV read the usual files of the same kinds."""

    def refuse(page):
        raise ValueError(f"{page.compression} requires the 'imagecodecs' "
                         'package')

    lzw = tiff(RGB_8, photometric='rgb', compression='lzw')
    large = np.tile(GREY_16, (4, 4))
    jpeg_2000 = cv2.imencode('.jp2', large)[1].tobytes()
    expected = [decode_image(lzw), decode_image(jpeg_2000, 1)]
    monkeypatch.setitem(sys.modules, 'imagecodecs', None)
    monkeypatch.setattr(tifffile.TiffPage, 'asarray', refuse)
    assert np.array_equal(decode_image(lzw), expected[0])
    assert np.array_equal(decode_image(jpeg_2000, 1), expected[1])
    with pytest.raises(ValueError, match='TIFF of LZW.*imagecodecs'):
        decode_image(tiff(RGB_16, photometric='rgb', compression='lzw'))


@pytest.mark.parametrize('options, message', [
    (dict(white_level=float('nan')), 'white_level to be finite, got nan'),
    (dict(white_level=float('inf')), 'white_level to be finite, got inf'),
    (dict(white_level=-5), 'black_level < white_level, got 0 and -5'),
    (dict(bands=3), 'bands for 3 channels.*got 3'),
    (dict(bands=(1, 2, 0)), 'bands for 3 channels, counted from 1'),
    (dict(bands=(1., 2., 3.)), 'bands for 3 channels'),
    (dict(min_side=0), 'min_side to be a positive number, got 0'),
    (dict(nodata='none'), "nodata to be a number or NaN, got 'none'"),
])
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Decoder(**options)


def test_black_level_above_the_full_scale():
    with pytest.raises(ValueError, match='together with black_level=300'):
        decode_image(npy(RGB_8), black_level=300)
