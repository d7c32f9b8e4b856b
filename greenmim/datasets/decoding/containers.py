# Copyright (c) greenmim authors. All rights reserved.
"""Files as they are stored: every band with all its bits.

Each kind of file is recognised by its first bytes and read by the library
that keeps its values: Pillow where 8 bits are all there is; NumPy, tifffile,
OpenCV or imagecodecs, pillow-heif and pydicom elsewhere. The last three are
extras, which are asked for where a file needs them.
"""
import re
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Iterator, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageOps, features

#: Pillow's own limit, in pixels.
MAX_PIXELS = 178_956_970

NPY = b'\x93NUMPY'
PNG = b'\x89PNG\r\n\x1a\n'
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
JPEG_2000 = (b'\0\0\0\x0cjP  ', b'\xff\x4f\xff\x51')
HEIF = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')
AVIF = (b'avif', b'avis')

TRUNCATED = 'the image file is truncated'

EXIF_ORIENTATION = 274

GDAL_NODATA = 42113  # the tag of a GeoTIFF

# Width, height and largest value of PGM and PPM, after any comments.
NETPBM = re.compile(rb'P[2356]' + 3 * rb'(?:\s+#[^\n]*)*\s+(\d+)' + rb'\s')

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
            itself names, or that follow from its bits.
        inverted (bool): Whether its largest value is black.
        nodata (float, optional): The value without data that it names.
        premultiplied (bool): Whether its colours are multiplied by opacity.

    Raises:
        ValueError: If there are no pixels, or they are no real numbers.
    """
    values: np.ndarray
    is_colour: bool = False
    has_alpha: bool = False
    is_tiff: bool = False
    window: Optional[Tuple[float, float]] = None
    inverted: bool = False
    nodata: Optional[float] = None
    premultiplied: bool = False

    def __post_init__(self) -> None:
        kind = self.values.dtype
        if kind.kind not in 'buif' or not self.values.size:
            raise ValueError(
                'expected a pixel or more of real numbers, got an array of '
                f'shape {self.values.shape} of {kind}; of complex numbers, '
                'save the magnitude')
        self.values = self.values.astype(kind.newbyteorder('='), copy=False)


def full_scale(bits: int) -> Tuple[float, float]:
    """Black and white of unsigned numbers of so many bits."""
    return 0., 2.**bits - 1


def read_raster(content: bytes,
                max_pixels: int = MAX_PIXELS,
                min_side: Optional[int] = None,
                grey: bool = False) -> Raster:
    """Read what Pillow would reduce to 8 bits or one frame.

    Args:
        content (bytes): The file, not empty.
        max_pixels (int): Refuse larger images.
        min_side (int, optional): JPEG files may be decoded at the smallest
            scale whose sides have this many pixels.
        grey (bool): Whether colours of 8 bits may be read as grey. Defaults
            to False.

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
        return _read_png(content, max_pixels)
    netpbm = NETPBM.match(content)
    if netpbm and int(netpbm[3]) > 255:
        check_size((int(netpbm[2]), int(netpbm[1])), max_pixels)
        raster = _read_by_opencv(content)
        raster.window = 0., float(netpbm[3])
        return raster
    if content.startswith(JPEG_2000):
        depths, size = _components(content)
        if max(depths) > 8 or len(depths) > 4:
            check_size(size, max_pixels)
            check_end(content, b'\xff\xd9')
            raster = _read_jpeg_2000(content, len(depths))
            if raster.values.dtype.kind == 'u':
                raster.window = full_scale(max(depths))
            return raster
    if (content[4:8] == b'ftyp' and content[8:12] in AVIF
            and not features.check('avif')):
        raise ValueError('expected Pillow 11.3 or later, which reads AVIF; '
                         'run: pip install -U pillow')
    with open_by_pillow(content, max_pixels, min_side) as image:
        return _raster_of(image, grey)


def has_8_bits(image: Image.Image) -> bool:
    """Whether an image of Pillow has no more than 8 bits a channel."""
    return image.mode[0] not in 'IF'


@contextmanager
def open_by_pillow(content: bytes, max_pixels: int,
                   min_side: Optional[int]) -> Iterator[Image.Image]:
    """The first frame, decoded and turned upright."""
    with without_limit(), Image.open(BytesIO(content)) as file:
        if min_side is not None:
            file.draft(None, (min_side, min_side))
        check_size(file.size[::-1], max_pixels)
        file.load()
        yield _upright(file)


@contextmanager
def without_limit() -> Iterator[None]:
    """Lift the limit of Pillow, which judges JPEG files before they shrink."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
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


def _raster_of(image: Image.Image, grey: bool = False) -> Raster:
    if has_8_bits(image):
        transparent = image.has_transparency_data
        grey = image.mode in ('1', 'L', 'LA', 'La') or (grey
                                                        and not transparent)
        if image.mode != '1':
            mode = 'L' if grey else 'RGB'
            if transparent:
                mode = 'LA' if grey else 'RGBA'
            if image.mode != mode:
                image = image.convert(mode)
        return Raster(_with_bands(np.asarray(image)), not grey, transparent)
    return Raster(_with_bands(np.asarray(image)))


def _with_bands(values: np.ndarray) -> np.ndarray:
    return values[..., None] if values.ndim == 2 else values


def _read_png(content: bytes, max_pixels: int) -> Raster:
    """PNG of 16 bits."""
    width, height = struct.unpack('>II', content[16:24])
    check_size((height, width), max_pixels)
    check_end(content, b'IEND')
    raster = _read_by_opencv(content)
    values = raster.values
    if b'tRNS' in content or b'eXIf' in content:
        with without_limit(), Image.open(BytesIO(content)) as file:
            transparent = file.info.get('transparency')
            orientation = file.getexif().get(EXIF_ORIENTATION, 1)
        # One colour; some versions of OpenCV make opacity of it.
        if transparent is not None and not raster.has_alpha:
            opaque = (values != np.asarray(transparent)).any(-1, keepdims=True)
            opacity = np.where(opaque, 65535, 0).astype(np.uint16)
            values = np.concatenate([values, opacity], -1)
            raster.has_alpha = True
        raster.values = _turn(values, orientation)
    return raster


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

    Two sides that are equal are height and width; otherwise an image has
    fewer bands than rows or columns. In doubt the last axis holds the bands.
    """
    if array.ndim == 2:
        return array[..., None]
    first, middle, last = array.shape
    if first != middle and (middle == last or first < min(middle, last)):
        return array.transpose(1, 2, 0)
    return array


def _read_tiff(content: bytes, max_pixels: int) -> Raster:
    import tifffile  # comes with scikit-image
    with tifffile.TiffFile(BytesIO(content)) as file:
        pages: Any = file.pages
        page = next((page for page in pages if not page.is_reduced), pages[0])
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
            elif len(file.pages) > 1 and page.index == 0:
                values = _pages(file.series[0], values)
        except ValueError as error:
            if 'imagecodecs' not in str(error):
                raise
            if page.bitspersample <= 8 and page.samplesperpixel <= 3:
                return _by_pillow(content, max_pixels)
            name = getattr(page.compression, 'name', page.compression)
            raise ValueError(need('imagecodecs', f'TIFF of {name}')) from error
        values = _with_bands(values)
        if values.shape[:2] == (page.imagelength, page.imagewidth):
            orientation = page.tags.get('Orientation')
            values = _turn(values, orientation.value if orientation else 1)
        bits = page.bitspersample
        packed = values.dtype.kind == 'u' and bits < 8 * values.itemsize
        last_extra = page.extrasamples[-1:]
        return Raster(
            values,
            is_colour=page.photometric == 2,
            has_alpha=last_extra in ((1, ), (2, )),
            is_tiff=True,
            window=full_scale(bits) if packed else None,
            inverted=page.photometric == 0,
            nodata=_nodata(page),
            premultiplied=last_extra == (1, ))


def _by_pillow(content: bytes, max_pixels: int) -> Raster:
    with open_by_pillow(content, max_pixels, None) as image:
        raster = _raster_of(image)
    raster.is_tiff = True
    return raster


def _nodata(page: Any) -> Optional[float]:
    """What GDAL wrote, of which tifffile makes 0 where it does not fit."""
    tag = page.tags.get(GDAL_NODATA)
    try:
        return None if tag is None else float(tag.value)
    except ValueError:
        return None


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


def _read_by_opencv(content: bytes) -> Raster:
    import cv2
    values = cv2.imdecode(
        np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError('the image file is damaged')
    values = _with_bands(values)
    if values.shape[-1] >= 3:  # BGR, with or without opacity
        values = values[..., [2, 1, 0, 3][:values.shape[-1]]]
    return Raster(values, values.shape[-1] >= 3, values.shape[-1] == 4)


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
        return _read_by_opencv(content)
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
        from pydicom.pixels import apply_color_lut, apply_modality_lut
    except ImportError:
        raise ValueError(need('pydicom', 'DICOM')) from None
    file = pydicom.dcmread(BytesIO(content))
    check_size((file.Rows, file.Columns), max_pixels)
    values = file.pixel_array
    colour = file.SamplesPerPixel == 3
    if values.ndim == 3 + colour:  # frames
        values = values[0]
    if file.PhotometricInterpretation == 'PALETTE COLOR':
        return Raster(apply_color_lut(values, file), is_colour=True)
    if colour:
        return Raster(values, is_colour=True)
    rescaling = _tags_of_frame(file, 'PixelValueTransformationSequence')
    stored, values = values, apply_modality_lut(values, rescaling)
    window = None
    view = _tags_of_frame(file, 'FrameVOILUTSequence')
    if float(np.ravel(view.get('WindowWidth') or 0)[0]) > 0:
        centre, width = (
            float(np.ravel(view[key].value)[0])
            for key in ('WindowCenter', 'WindowWidth'))
        window = centre - width / 2, centre + width / 2
    elif values is stored and values.dtype.kind == 'u':
        window = full_scale(file.BitsStored)
    nodata = file.get('PixelPaddingValue')
    if nodata is not None:  # some files name it without its sign
        padding = np.array([[nodata]]).astype(stored.dtype)
        nodata = float(apply_modality_lut(padding, rescaling)[0, 0])
    return Raster(
        _with_bands(values),
        window=window,
        inverted=file.PhotometricInterpretation == 'MONOCHROME1',
        nodata=nodata)


def _tags_of_frame(file: Any, name: str) -> Any:
    """Where the tags of a kind are: beside the image, or in its frames."""
    for groups in 'PerFrameFunctionalGroupsSequence', \
            'SharedFunctionalGroupsSequence':
        if file.get(groups) and file[groups][0].get(name):
            return file[groups][0][name][0]
    return file


def need(package: str, what: str) -> str:
    """The text of an error about a package that is not installed."""
    name = package.replace('_', '-')
    return (f'expected {name} to be installed, which reads {what}; run: pip '
            f'install {name} (or greenmim[{EXTRAS[package]}])')
