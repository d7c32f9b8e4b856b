# Copyright (c) greenmim authors. All rights reserved.
"""Decoding of image files of many formats into uint8 arrays."""
from io import BytesIO
from typing import Optional

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from PIL import Image, ImageOps, UnidentifiedImageError

from greenmim.registry import TRANSFORMS

NPY_SIGNATURE = b'\x93NUMPY'
TIFF_SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')


class UnreadableImageError(ValueError):
    """The file cannot be decoded into an image with the given channels."""


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Load an image of any common format with a fixed number of channels.

    MMCV's loader accepts truncated JPEG files (the missing part comes out
    grey) and drops transparency. This one decodes with Pillow, takes the
    first frame of animations, respects the EXIF orientation and turns
    palette, grey, CMYK, transparent and 16-bit images into 8-bit images as
    :func:`decode_image` says.

    **Required Keys:**

    - img_path
    - img_bytes (optional): The content of the file, which is then not read

    **Added Keys:**

    - img (np.ndarray): uint8, (H, W, channels), BGR for three channels, or
      (H, W) for one, as MMCV loads images
    - img_shape, ori_shape (tuple): (H, W)

    Args:
        channels (int): Channels of every image. 1 and 3 are converted to;
            any other number is taken from files that hold exactly as many
            bands (TIFF or NPY for more than four). Arrays of NPY files, like
            TIFF files of several bands, are (H, W, channels) or
            (channels, H, W), RGB for three channels. Defaults to 3.
        min_side (int, optional): Decode JPEG files at 1/2, 1/4 or 1/8 of
            their size as long as both sides keep at least this length, which
            makes large photographs several times faster to load. By default
            every image is decoded at full size.
        white_level (int): Value of a 16-bit image that becomes 255, e.g.
            4095 for files of a 12-bit camera. Defaults to 65535.
        backend_args (dict, optional): Arguments of the file backend.
            Defaults to None.

    Raises:
        UnreadableImageError: If the file is missing, empty, truncated, no
            image, or has other channels than ``channels``.
        ValueError: If ``channels`` or ``white_level`` is out of range.
    """

    def __init__(self,
                 channels: int = 3,
                 min_side: Optional[int] = None,
                 white_level: int = 65535,
                 backend_args: Optional[dict] = None) -> None:
        if channels < 1:
            raise ValueError('`channels` should be a positive number, but got '
                             f'{channels}. Use 3 for colour, 1 for grey.')
        if not 1 <= white_level <= 65535:
            raise ValueError('`white_level` should be within [1, 65535], but '
                             f'got {white_level}. It is the value of a '
                             '16-bit image that is shown as white.')
        self.channels = channels
        self.min_side = min_side
        self.white_level = white_level
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        path = results['img_path']
        try:
            content = results.pop('img_bytes', None)
            if content is None:
                content = get(path, backend_args=self.backend_args)
            image = decode_image(content, self.channels, self.min_side,
                                 self.white_level)
        except UnidentifiedImageError as error:
            raise UnreadableImageError(
                f'cannot read the image {path}: its content is of no known '
                'image format') from error
        # Decoders report broken files by exceptions of many kinds.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise UnreadableImageError(
                f'cannot read the image {path}: {reason}') from error
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(channels={self.channels}, '
                f'min_side={self.min_side}, white_level={self.white_level}, '
                f'backend_args={self.backend_args})')


def decode_image(content: bytes,
                 channels: int = 3,
                 min_side: Optional[int] = None,
                 white_level: int = 65535) -> np.ndarray:
    """Decode the bytes of an image file.

    For one or three channels: the first frame, turned upright; transparent
    pixels are laid over white; 16-bit values are scaled so that
    ``white_level`` becomes 255; floating-point images, whose range no format
    fixes, are stretched from their minimum to their maximum. For other numbers
    of channels: the bands of a TIFF file or an NPY array.

    Args:
        content (bytes): The file.
        channels (int): Channels of the result. Defaults to 3.
        min_side (int, optional): JPEG files may be decoded at the smallest
            scale whose sides have this many pixels. Defaults to None.
        white_level (int): The 16-bit value that becomes 255. Defaults to
            65535.

    Returns:
        np.ndarray: uint8, (H, W, channels), BGR for three channels; (H, W)
        for one.

    Raises:
        ValueError: If the file is empty or has other channels. For damaged
            files, decoders raise errors of many kinds; :class:`LoadImage`
            turns all of them into :class:`UnreadableImageError`.
    """
    if not content:
        raise ValueError('the file is empty (0 bytes)')
    if content.startswith(NPY_SIGNATURE):
        return _decode_array(content, channels, white_level)
    if channels not in (1, 3):
        return _decode_bands(content, channels, white_level)
    with Image.open(BytesIO(content)) as file:
        if min_side is not None:
            file.draft(None, (min_side, min_side))
        file.load()
        image = _upright(file)
        if image.mode[0] in 'IF':  # 16 or 32 bits per pixel, or float
            image = Image.fromarray(_to_uint8(np.asarray(image), white_level))
        if image.has_transparency_data:
            image = image.convert('RGBA')
            white = Image.new('RGBA', image.size, 'white')
            image = Image.alpha_composite(white, image)
        if channels == 1:
            return np.array(image.convert('L'))
        return np.ascontiguousarray(
            np.asarray(image.convert('RGB'))[..., ::-1])


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken metadata beside good pixels
        return image


def _to_uint8(image: np.ndarray, white_level: int) -> np.ndarray:
    """Scale an array of a wider type to 0-255."""
    if image.dtype == np.uint8:
        return image
    if np.issubdtype(image.dtype, np.floating):
        image = np.nan_to_num(image, posinf=0, neginf=0)
        image = image - image.min()
        white_level = image.max() or 1
    scaled = image.astype(np.float32) * (255 / white_level)
    return scaled.round().clip(0, 255).astype(np.uint8)


def _decode_bands(content: bytes, channels: int,
                  white_level: int) -> np.ndarray:
    """Read a file that holds exactly ``channels`` bands, none converted."""
    if content.startswith(TIFF_SIGNATURES):
        import tifffile  # comes with scikit-image
        image = tifffile.imread(BytesIO(content))
    else:
        with Image.open(BytesIO(content)) as file:
            image = np.asarray(file)
    return _bands(image, channels, white_level)


def _decode_array(content: bytes, channels: int,
                  white_level: int) -> np.ndarray:
    """Read an NPY file of (H, W), (H, W, channels) or (channels, H, W)."""
    array = np.load(BytesIO(content), allow_pickle=False)
    if array.ndim == 2 and channels == 1:
        array = array[..., None]
    array = _bands(array, channels, white_level)
    if channels == 3:
        array = array[..., ::-1]
    return np.ascontiguousarray(array[..., 0] if channels == 1 else array)


def _bands(image: np.ndarray, channels: int, white_level: int) -> np.ndarray:
    """An array with its bands last, as uint8."""
    if image.ndim == 3 and image.shape[0] == channels != image.shape[-1]:
        image = image.transpose(1, 2, 0)  # stored band by band
    if image.ndim != 3 or image.shape[-1] != channels:
        raise ValueError(f'expected {channels} bands, but the file holds an '
                         f'array of shape {image.shape}')
    return np.ascontiguousarray(_to_uint8(image, white_level))
