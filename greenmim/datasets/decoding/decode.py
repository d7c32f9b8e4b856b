# Copyright (c) greenmim authors. All rights reserved.
from dataclasses import dataclass
from numbers import Real
from typing import Any, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from .containers import MAX_PIXELS, Raster, check_size, read_raster
from .jpeg import Photograph, read_photograph
from .levels import Level, count_levels, find_range, to_levels, valid_values

# Of grey, from red, green and blue: ITU-R 601-2, as Pillow has it.
GREY = np.array([.299, .587, .114], np.float32)


@dataclass(frozen=True)
class Decoder:
    """Decodes files into images of one number of channels and one scale.

    Values map linearly from [black_level, white_level] to [0, 255]; outside
    of it they are clipped. Without a range, uint8 stays as it is, bool
    becomes 0 and 255, uint16 is divided by 257, floats within 0 to 1 are
    multiplied by 255, other integers within 0 to 255 stay as they are;
    anything else is an error. A file that names its own range, by the window
    of DICOM or by a number of bits such as 12, has this one. NaN and
    infinities are no data. Where white is zero (X-rays, fax), levels are
    inverted after the mapping.

    Args:
        channels (int): Channels of the result. Files of one band or of red,
            green and blue are converted to 1 or 3; any other number is that
            of the file's bands. Defaults to 3.
        bands (Sequence[int], optional): The bands of the file that become
            the channels, counted from 1, for any file with more. Defaults to
            None.
        black_level (float | Sequence[float] | str, optional): The value that
            becomes 0, or one for each channel in the order of ``bands``;
            ``'min'`` for the smallest of each image. Defaults to None: 0
            where there is a white level.
        white_level (float | Sequence[float] | str, optional): The value that
            becomes 255, or one for each channel; ``'max'`` for the largest of
            each image. Defaults to None: the largest value of uint8 and
            uint16 where there is a black level.
        nodata (float, optional): The value of pixels without data, which
            become 0. Defaults to None, the one that a GeoTIFF names.
        alpha (str, optional): ``'white'`` lays transparent pixels over
            white, ``'ignore'`` drops the opacity. Defaults to None:
            ``'ignore'`` for TIFF, whose writers mark other bands as opacity,
            ``'white'`` elsewhere.
        dtype (str): ``'uint8'``, or ``'float32'``, which keeps precision
            beyond 8 bits on the same scale. Defaults to ``'uint8'``.
        max_pixels (int): Refuse larger images. Defaults to 178,956,970.
        min_side (int, optional): JPEG files may be decoded at the smallest
            scale whose sides have this many pixels. Defaults to None.
        decoder (str): ``'opencv'`` decodes plain JPEG files by OpenCV, which
            gives the same values sooner; Pillow and others read all the
            rest. ``'pillow'`` leaves JPEG to Pillow. Defaults to
            ``'opencv'``.

    Raises:
        ValueError: If an option is out of range; while decoding, if the file
            is empty, has other bands, or values that need a range. Decoders
            raise errors of a dozen kinds where a file is damaged.
    """
    channels: int = 3
    bands: Optional[Sequence[int]] = None
    black_level: Level = None
    white_level: Level = None
    nodata: Optional[float] = None
    alpha: Optional[str] = None
    dtype: str = 'uint8'
    max_pixels: int = MAX_PIXELS
    min_side: Optional[int] = None
    decoder: str = 'opencv'

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError('expected channels to be a positive number, got '
                             f'{self.channels}; use 3 for colour, 1 for grey')
        bands: Any = self.bands
        if bands is not None and not (np.ndim(bands) == 1
                                      and len(bands) == self.channels and all(
                                          isinstance(band, int) and band > 0
                                          for band in bands)):
            raise ValueError(
                f'expected bands for {self.channels} channels, counted from '
                f'1, got {bands!r}')
        for name in ('black_level', 'white_level'):
            self._check_level(name)
        if self.alpha not in (None, 'white', 'ignore'):
            raise ValueError("expected alpha to be 'white' or 'ignore', got "
                             f'{self.alpha!r}')
        if self.dtype not in ('uint8', 'float32'):
            raise ValueError("expected dtype to be 'uint8' or 'float32', got "
                             f'{self.dtype!r}')
        if self.decoder not in ('opencv', 'pillow'):
            raise ValueError("expected decoder to be 'opencv' or 'pillow', "
                             f'got {self.decoder!r}')
        if self.nodata is not None and not isinstance(self.nodata, Real):
            raise ValueError('expected nodata to be a number or NaN, got '
                             f'{self.nodata!r}')
        for name in ('max_pixels', 'min_side'):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(
                    f'expected {name} to be a positive number, got {number}')

    def _check_level(self, name: str) -> None:
        level: Any = getattr(self, name)
        word = dict(black_level='min', white_level='max')[name]
        if isinstance(level, str) and level != word:
            raise ValueError(f'expected {name} to be a number, one for each '
                             f'channel, or {word!r}, got {level!r}')
        if np.ndim(level) and len(level) != self.channels:
            raise ValueError(
                f'expected {name} to be a number, or one for each of '
                f'{self.channels} channels, got {list(level)}')
        if level is not None and not isinstance(
                level, str) and not np.isfinite(np.asarray(level,
                                                           float)).all():
            raise ValueError(f'expected {name} to be finite, got {level}')
        black, white = self.black_level, self.white_level
        black = 0 if black is None else black
        if (name == 'white_level' and white is not None
                and not isinstance(black, str) and not isinstance(white, str)
                and not (np.asarray(black) < np.asarray(white)).all()):
            raise ValueError('expected black_level < white_level, got '
                             f'{black} and {white}')

    def __call__(self, content: bytes) -> Tuple[np.ndarray, Optional[int]]:
        """Decode the bytes of a file.

        Returns:
            tuple: The image, (H, W, channels), BGR for three channels, or
            (H, W) for one; and how many of the 256 levels it uses where
            values were mapped, else None.
        """
        if not content:
            raise ValueError('the file is empty (0 bytes)')
        photograph = self.photograph(content)
        image = None if photograph is None else photograph.decode()
        if image is not None:
            return image, None
        # Without further options grey of 8 bits is the same, and faster.
        grey = self.channels == 1 and self._takes_values_as_they_are()
        return self.convert(
            read_raster(content, self.max_pixels, self.min_side, grey))

    def photograph(self, content: bytes) -> Optional[Photograph]:
        """The header of a file that OpenCV decodes; None of all others.

        Raises:
            Exception: If it has too many pixels, or is damaged.
        """
        if (self.decoder != 'opencv' or self.channels not in (1, 3)
                or self.dtype != 'uint8'
                or not self._takes_values_as_they_are()):
            return None
        found = read_photograph(content, self.channels, self.min_side)
        if found is not None:
            check_size(found.shape, self.max_pixels)
        return found

    def _takes_values_as_they_are(self) -> bool:
        options = self.bands, self.black_level, self.white_level, self.nodata
        return options == (None, ) * 4

    def convert(self, raster: Raster) -> Tuple[np.ndarray, Optional[int]]:
        """The same from the pixels of a file, or of a part of it."""
        values, opacity = self.choose_bands(raster)
        given = self.black_level is not None or self.white_level is not None
        nodata = raster.nodata if self.nodata is None else self.nodata
        used = None
        if (values.dtype == np.uint8 and not given and nodata is None
                and raster.window is None and not raster.inverted):
            levels = values
        else:
            levels, used = self._map(values, raster, given, nodata)
        if opacity is not None:
            if not raster.premultiplied:
                levels = levels * opacity
            levels = (levels + 255 * (1 - opacity)).clip(0, 255)
        return self._finish(levels), used

    def choose_bands(
            self, raster: Raster) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        """The bands that are asked for, and the opacity, (H, W, 1)."""
        values, count = raster.values, self.channels
        number = values.shape[-1]
        if self.bands is not None:
            if max(self.bands) > number:
                raise ValueError(f'expected bands {list(self.bands)}, got a '
                                 f'file of {number} bands')
            return values[..., [band - 1 for band in self.bands]], None
        if number == count:
            return values, None
        colours = 3 if raster.is_colour else 1
        if count not in (1, 3) or not (raster.is_colour or number
                                       == colours + raster.has_alpha):
            raise ValueError(
                f'expected {count} bands, got an array of shape '
                f'{values.shape}; name the bands to take, bands=(1, 2, 3) of '
                'LoadImage for example, or set channels')
        opacity = None
        alpha = self.alpha or ('ignore' if raster.is_tiff else 'white')
        if raster.has_alpha and alpha == 'white':
            opacity = values[..., -1:].astype(np.float32)
            if values.dtype.kind == 'u':
                opacity /= np.iinfo(values.dtype).max
        values = values[..., :colours]
        levels: Any = self.black_level, self.white_level
        if colours == 1 and count == 3 and any(map(np.ndim, levels)):
            values = values.repeat(3, axis=-1)  # each with its own range
        return values, opacity

    def _map(self, values: np.ndarray, raster: Raster, given: bool,
             nodata: Optional[float]) -> Tuple[np.ndarray, Optional[int]]:
        valid = valid_values(values, nodata)
        if raster.window is not None and not given:
            black, white = map(np.asarray, raster.window)
        else:
            black, white = find_range(values, valid, self.black_level,
                                      self.white_level)
        levels = to_levels(values, valid, black, white)
        if raster.inverted:
            levels = 255 - levels
            if valid is not None:
                levels[~valid] = 0
        used = None
        if given or values.dtype == np.uint16:
            used = count_levels(levels, valid)
        return levels, used

    def _finish(self, levels: np.ndarray) -> np.ndarray:
        """Levels of one, three or more bands as the image."""
        if self.channels == 1 and levels.shape[-1] == 3:
            if levels.dtype == np.uint8 and self.dtype == 'uint8':
                return np.array(Image.fromarray(levels).convert('L'))
            levels = (levels @ GREY)[..., None]
        if self.channels == 3 and levels.shape[-1] == 1:
            levels = levels.repeat(3, axis=-1)
        if self.channels == 3:
            levels = levels[..., ::-1]
        elif self.channels == 1:
            levels = levels[..., 0]
        if self.dtype == 'uint8' and levels.dtype != np.uint8:
            levels = levels.round()
        # A copy, which may be written to.
        return np.array(levels, self.dtype, order='C')


def decode_image(content: bytes, *args: Any, **kwargs: Any) -> np.ndarray:
    """Decode the bytes of an image file.

    Args:
        content (bytes): The file.
        *args: See :class:`Decoder`.
        **kwargs: See :class:`Decoder`.

    Returns:
        np.ndarray: (H, W, channels), BGR for three channels; (H, W) for one.
    """
    return Decoder(*args, **kwargs)(content)[0]
