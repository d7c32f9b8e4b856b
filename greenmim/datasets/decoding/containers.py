# Copyright (c) greenmim authors. All rights reserved.
"""Files as they are stored: every band with all its bits.

Each kind of file is recognised by its first bytes and read by the library
that keeps its values: Pillow where 8 bits are all there is; NumPy, tifffile,
OpenCV or imagecodecs, pillow-heif and pydicom elsewhere. The last three are
extras, which are asked for where a file needs them.
"""
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Iterator, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageOps

#: Pillow's own limit, in pixels.
MAX_PIXELS = 178_956_970

NPY = b'\x93NUMPY'
PNG = b'\x89PNG\r\n\x1a\n'
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
JPEG_2000 = (b'\0\0\0\x0cjP  ', b'\xff\x4f\xff\x51')
HEIF = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')

TRUNCATED = 'the image file is truncated'

GDAL_NODATA = 42113  # the tag of a GeoTIFF

# The extra of setup.cfg that holds a package.
EXTRAS = dict(
    imagecodecs='tiff', pillow_heif='heif', pydicom='dicom', rasterio='geo')


@dataclass
class Raster:
    """The pixels of a file.

    Args:
        values (ndarray): Shape (H, W, bands), of the file's number type.
        is_colour (bool): Whether the first three bands are red, green and
            blue.
        has_alpha (bool): Whether the last band is opacity.
        is_tiff (bool): Whether the file is TIFF, whose writers mark other
            bands as opacity.
        window (tuple[float, float], optional): Black and white that the file
            itself names.
        inverted (bool): Whether its largest value is black.
        nodata (float, optional): The value without data that it names.
    """
    values: np.ndarray
    is_colour: bool = False
    has_alpha: bool = False
    is_tiff: bool = False
    window: Optional[Tuple[float, float]] = None
    inverted: bool = False
    nodata: Optional[float] = None


def read_raster(content: bytes,
                max_pixels: int = MAX_PIXELS,
                min_side: Optional[int] = None) -> Raster:
    """Read what Pillow would reduce to 8 bits or one frame.

    Args:
        content (bytes): The file, not empty.
        max_pixels (int): Refuse larger images.
        min_side (int, optional): JPEG files may be decoded at the smallest
            scale whose sides have this many pixels.

    Raises:
        ValueError: If the image is too large, or an extra is missing.
    """
    if content.startswith(NPY):
        return _read_npy(content, max_pixels)
    if content.startswith(TIFF):
        return _read_tiff(content, max_pixels)
    if content[128:132] == b'DICM':
        return _read_dicom(content, max_pixels)
    if content[4:8] == b'ftyp' and content[8:12] in HEIF:
        return _read_heif(content, max_pixels)
    if content.startswith(PNG) and content[24:25] == b'\x10':
        if content[25] != 0:  # colour, or grey with opacity
            width, height = struct.unpack('>II', content[16:24])
            check_size((height, width), max_pixels)
            check_end(content, b'IEND')
            return _read_by_opencv(content, content[25] in (4, 6))
    if content.startswith(JPEG_2000):
        depths, size = _components(content)
        if max(depths) > 8 or len(depths) > 4:
            check_size(size, max_pixels)
            check_end(content, b'\xff\xd9')
            return _read_jpeg_2000(content, len(depths))
    with open_by_pillow(content, max_pixels, min_side) as image:
        return _raster_of(image)


def has_8_bits(image: Image.Image) -> bool:
    """Whether an image of Pillow has no more than 8 bits a channel."""
    return image.mode[0] not in 'IF'


@contextmanager
def open_by_pillow(content: bytes, max_pixels: int,
                   min_side: Optional[int]) -> Iterator[Image.Image]:
    """The first frame, decoded and turned upright."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # it is judged before JPEG files shrink
    try:
        with Image.open(BytesIO(content)) as file:
            if min_side is not None:
                file.draft(None, (min_side, min_side))
            check_size(file.size[::-1], max_pixels)
            file.load()
            yield _upright(file)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_size(size: Sequence[int], max_pixels: int) -> None:
    """Raise ``ValueError`` if height times width exceed the limit."""
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        raise ValueError(
            f'expected at most max_pixels={max_pixels:,} pixels, got '
            f'{pixels:,}; raise max_pixels of LoadImage, cut the image into '
            'tiles, or set min_side for JPEG files')


def check_end(content: bytes, mark: bytes) -> None:
    """Raise ``ValueError`` unless the mark of a file's end is there.

    OpenCV and imagecodecs fill what is missing with grey.
    """
    if mark not in content:
        raise ValueError(TRUNCATED)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken metadata beside good pixels
        return image


def _raster_of(image: Image.Image) -> Raster:
    if has_8_bits(image):
        transparent = image.has_transparency_data
        grey = image.mode in ('1', 'L', 'LA', 'La')
        if image.mode != '1':
            mode = 'L' if grey else 'RGB'
            if transparent:
                mode = 'LA' if grey else 'RGBA'
            image = image.convert(mode)
        return Raster(_with_bands(np.asarray(image)), not grey, transparent)
    return Raster(_with_bands(np.asarray(image)))


def _with_bands(values: np.ndarray) -> np.ndarray:
    return values[..., None] if values.ndim == 2 else values


def _read_npy(content: bytes, max_pixels: int) -> Raster:
    array = np.load(BytesIO(content), allow_pickle=False)
    if array.ndim not in (2, 3) or array.dtype.kind not in 'buif':
        raise ValueError(
            'expected an array of shape (H, W), (H, W, bands) or (bands, H, '
            f'W) of numbers, got {array.shape} of {array.dtype}')
    array = _bands_last(array)
    check_size(array.shape[:2], max_pixels)
    return Raster(array, array.shape[-1] == 3)


def _bands_last(array: np.ndarray) -> np.ndarray:
    """(H, W) or bands first or last -> (H, W, bands).

    An image has fewer bands than rows or columns; where both ends are alike,
    the last one holds the bands.
    """
    if array.ndim == 2:
        return array[..., None]
    if array.shape[0] < array.shape[-1] and array.shape[0] <= array.shape[1]:
        return array.transpose(1, 2, 0)
    return array


def _read_tiff(content: bytes, max_pixels: int) -> Raster:
    import tifffile  # comes with scikit-image
    with tifffile.TiffFile(BytesIO(content)) as file:
        page: Any = file.pages[0]
        check_size((page.imagelength, page.imagewidth), max_pixels)
        if page.photometric not in (0, 1, 2):  # palette, YCbCr, CMYK, ...
            return _by_pillow(content, max_pixels)
        last = max(
            offset + count
            for offset, count in zip(page.dataoffsets, page.databytecounts))
        if last > len(content):
            raise ValueError(TRUNCATED)
        try:
            values = page.asarray()
            if page.samplesperpixel > 1:
                if page.planarconfig == 2:
                    values = np.moveaxis(values, 0, -1)
            elif len(file.pages) > 1:
                values = _pages(file.series[0], values)
        except ValueError as error:
            if 'imagecodecs' not in str(error):
                raise
            if page.bitspersample <= 8 and page.samplesperpixel <= 3:
                return _by_pillow(content, max_pixels)
            name = getattr(page.compression, 'name', page.compression)
            raise ValueError(need('imagecodecs', f'TIFF of {name}')) from error
        if page.bitspersample == 1:
            values = values.astype(bool)
        elif page.photometric == 0 and values.dtype.kind == 'u':
            values = 2**page.bitspersample - 1 - values
        values = _with_bands(values)
        if values.shape[:2] == (page.imagelength, page.imagewidth):
            orientation = page.tags.get('Orientation')
            values = _turn(values, orientation.value if orientation else 1)
        return Raster(
            values,
            is_colour=page.photometric == 2,
            has_alpha=any(kind in (1, 2) for kind in page.extrasamples),
            is_tiff=True,
            nodata=page.nodata if GDAL_NODATA in page.tags else None)


def _by_pillow(content: bytes, max_pixels: int) -> Raster:
    with open_by_pillow(content, max_pixels, None) as image:
        raster = _raster_of(image)
    raster.is_tiff = True
    return raster


def _pages(series: Any, first: np.ndarray) -> np.ndarray:
    """The pages as bands if they are one array, else the first page."""
    return _bands_last(series.asarray()) if len(series.shape) == 3 else first


def _turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an orientation of EXIF, 1 to 8."""
    if orientation >= 5:
        values = values.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def _read_by_opencv(content: bytes, has_alpha: bool) -> Raster:
    import cv2
    values = cv2.imdecode(
        np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError('the image file is damaged')
    values = _with_bands(values)
    if values.shape[-1] >= 3:  # BGR, with or without opacity
        values = values[..., [2, 1, 0, 3][:values.shape[-1]]]
    return Raster(values, values.shape[-1] >= 3, has_alpha)


def _components(content: bytes) -> Tuple[Sequence[int], Tuple[int, int]]:
    """Bits of every component of JPEG 2000, and height and width."""
    start = content.find(b'\xff\x51') + 4
    width, height, left, top = struct.unpack('>IIII',
                                             content[start + 2:start + 18])
    number, = struct.unpack('>H', content[start + 34:start + 36])
    depths = [(content[start + 36 + 3 * i] & 0x7f) + 1 for i in range(number)]
    return depths, (height - top, width - left)


def _read_jpeg_2000(content: bytes, components: int) -> Raster:
    try:
        from imagecodecs import jpeg2k_decode
    except ImportError:
        if components > 4:
            raise ValueError(
                need('imagecodecs',
                     f'JPEG 2000 of {components} bands')) from None
        return _read_by_opencv(content, components in (2, 4))
    values = _with_bands(jpeg2k_decode(content))
    return Raster(values, components in (3, 4), components in (2, 4))


def _read_heif(content: bytes, max_pixels: int) -> Raster:
    try:
        import pillow_heif
    except ImportError:
        raise ValueError(need('pillow_heif', 'HEIC')) from None
    file = pillow_heif.open_heif(BytesIO(content), convert_hdr_to_8bit=False)
    check_size(file.size[::-1], max_pixels)
    values = _with_bands(np.asarray(file))
    return Raster(values, values.shape[-1] >= 3, file.has_alpha)


def _read_dicom(content: bytes, max_pixels: int) -> Raster:
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut
    except ImportError:
        raise ValueError(need('pydicom', 'DICOM')) from None
    file = pydicom.dcmread(BytesIO(content))
    check_size((file.Rows, file.Columns), max_pixels)
    values = file.pixel_array
    colour = file.SamplesPerPixel == 3
    if values.ndim == 3 + colour:  # frames
        values = values[0]
    window = None
    if not colour:
        values = apply_modality_lut(values, file)
        centre, width = (
            file.get(key) for key in ('WindowCenter', 'WindowWidth'))
        if centre is not None and width is not None:
            centre, width = (
                float(np.ravel(value)[0]) for value in (centre, width))
            window = centre - width / 2, centre + width / 2
    return Raster(
        _with_bands(values),
        is_colour=colour,
        window=window,
        inverted=file.PhotometricInterpretation == 'MONOCHROME1')


def need(package: str, what: str) -> str:
    """The text of an error about a package that is not installed."""
    name = package.replace('_', '-')
    return (f'expected {name} to be installed, which reads {what}; run: pip '
            f'install {name} (or greenmim[{EXTRAS[package]}])')
