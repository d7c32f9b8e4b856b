# Copyright (c) greenmim authors. All rights reserved.
"""Values of any number type on the scale 0 to 255."""
from typing import Any, Optional, Sequence, Tuple, Union

import numpy as np

Level = Union[float, str, Sequence[float], None]

#: What prints a range for the images of a folder.
SUGGEST = 'python tools/misc/channel_statistics.py FOLDER'


def valid_values(values: np.ndarray,
                 nodata: Optional[float]) -> Optional[np.ndarray]:
    """Which values are data.

    Args:
        values (ndarray): Values of any shape.
        nodata (float, optional): The value of pixels without data. NaN and
            infinities never are data.

    Returns:
        ndarray | None: Bool of the same shape, None where all are data.
    """
    valid = None
    if values.dtype.kind == 'f':
        valid = np.isfinite(values)
    if nodata is not None and not np.isnan(nodata):
        # A file of 32 bits holds the nearest number of 32 bits.
        stored: float = nodata
        if values.dtype.kind == 'f':
            with np.errstate(over='ignore'):
                stored = values.dtype.type(nodata)
        differs = values != stored
        valid = differs if valid is None else valid & differs
    if valid is None or bool(valid.all()):
        return None
    return valid


def find_range(values: np.ndarray, valid: Optional[np.ndarray], black: Level,
               white: Level) -> Tuple[np.ndarray, np.ndarray]:
    """The values that become 0 and 255.

    Args:
        values (ndarray): Shape (H, W, C), of any number type.
        valid (ndarray, optional): See :func:`valid_values`.
        black (float | Sequence[float] | str, optional): A number, or one for
            each channel; ``'min'``, the smallest value of the image.
        white (float | Sequence[float] | str, optional): A number, or one for
            each channel; ``'max'``, the largest value of the image.

    Returns:
        tuple[ndarray, ndarray]: Black and white, each a number or one for
        each channel. Without a range: uint8 and all other integers as they
        are, if they are within 0 to 255; bool and floats within 0 to 1 times
        255; uint16 divided by 257.

    Raises:
        ValueError: If the values are outside of these and no range is given.
    """
    given = black is not None or white is not None
    data = values
    if valid is not None and (not given or 'min' == black or 'max' == white):
        data = values[valid]
    if given:
        if isinstance(black, str):
            black = float(data.min()) if data.size else 0.
        if isinstance(white, str):
            white = float(data.max()) if data.size else 1.
        if white is None:
            white = _full_scale(values.dtype, black)
        low = np.asarray(0. if black is None else black, np.float64)
        high = np.asarray(white, np.float64)
        # A flat image has no range of its own: all of it is black.
        return low, np.where(high <= low, low + 1, high)
    kind = values.dtype
    if kind == np.bool_:
        return np.asarray(0.), np.asarray(1.)
    if kind == np.uint8:
        return np.asarray(0.), np.asarray(255.)
    if kind == np.uint16:
        return np.asarray(0.), np.asarray(65535.)
    limit = 1 if kind.kind == 'f' else 255
    if data.size and not (data.min() >= 0 and data.max() <= limit):
        raise ValueError(
            f'expected values within 0 to {limit} of {kind} without a range, '
            f'got {data.min():g} to {data.max():g}; set black_level and '
            f'white_level of LoadImage (and nodata, if a value stands for '
            f'"no data"), which {SUGGEST} suggests')
    return np.asarray(0.), np.asarray(float(limit))


def _full_scale(kind: np.dtype, black: Any) -> float:
    white = {np.dtype(np.uint8): 255., np.dtype(np.uint16): 65535.}.get(kind)
    if white is None or not np.less(black, white).all():
        raise ValueError(
            f'expected white_level together with black_level={black} for '
            f'values of {kind}, got none')
    return white


def to_levels(values: np.ndarray, valid: Optional[np.ndarray],
              black: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Map [black, white] linearly to [0, 255]; what is outside is clipped.

    Args:
        values (ndarray): Shape (H, W, C).
        valid (ndarray, optional): Where it is False, the result is 0.
        black (ndarray): A number, or one for each channel.
        white (ndarray): The same.

    Returns:
        ndarray: float32, (H, W, C).
    """
    # Integers of 32 bits and more do not fit the 24 bits of a float32.
    exact = np.float32 if values.dtype.itemsize <= 2 else np.float64
    with np.errstate(invalid='ignore', over='ignore'):
        levels = values.astype(exact) - black.astype(exact)
        levels *= (255 / (white - black)).astype(exact)
    if valid is not None:
        levels[~valid] = 0
    return levels.clip(0, 255).astype(np.float32)


def count_levels(levels: np.ndarray, valid: Optional[np.ndarray]) -> int:
    """How many of the 256 levels an image uses, pixels without data aside."""
    data = levels if valid is None else levels[valid]
    data = data.ravel().round().astype(np.uint8)
    return int(np.count_nonzero(np.bincount(data, minlength=256)))
