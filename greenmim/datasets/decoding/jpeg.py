# Copyright (c) greenmim authors. All rights reserved.
"""JPEG photographs, decoded by OpenCV.

OpenCV and Pillow use the same library, libjpeg-turbo, and return the same
values. OpenCV's are an array already, blue first, as images are loaded here;
Pillow's are copied three times on the way. OpenCV fills what is missing of a
file with grey, and knows no orientation but that of EXIF, so Pillow reads the
header and whatever is not plain.
"""
from io import BytesIO
from typing import NamedTuple, Optional, Tuple

import cv2
import numpy as np
from PIL import Image

from .containers import EXIF_ORIENTATION, without_limit

SCALES = (8, 4, 2, 1)
"""libjpeg decodes at one over these."""

GREY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8
}
COLOUR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8
}


class Photograph(NamedTuple):
    """A JPEG file whose header has been read.

    Args:
        content (bytes): The file.
        shape (tuple[int]): Height and width that are decoded.
        scale (int): One over the scale that gives this shape.
        channels (int): 3, blue first, or 1.
    """
    content: bytes
    shape: Tuple[int, int]
    scale: int
    channels: int

    def decode(self, smaller: int = 1) -> Optional[np.ndarray]:
        """Decode it, as many times smaller.

        Returns:
            ndarray | None: uint8, (H, W, 3) or (H, W); None if the file is
            damaged.
        """
        flags = GREY if self.channels == 1 else COLOUR
        try:
            return cv2.imdecode(
                np.frombuffer(self.content, np.uint8),
                flags[self.scale * smaller] | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:
            return None

    def smaller_for(self, crop: Tuple[int, int], enough: Tuple[float,
                                                               float]) -> int:
        """How many times smaller it may be decoded for a crop.

        Args:
            crop (tuple[int]): Height and width of the crop.
            enough (tuple[float]): Those that the crop has to keep.
        """
        most = min(crop[0] / enough[0], crop[1] / enough[1])
        return next(scale for scale in SCALES
                    if scale <= max(most, 1) and scale * self.scale <= 8)


def read_photograph(content: bytes, channels: int,
                    min_side: Optional[int]) -> Optional[Photograph]:
    """Read the header of a file that OpenCV decodes as Pillow does.

    Args:
        content (bytes): The file.
        channels (int): 1 or 3.
        min_side (int, optional): The smallest scale is chosen whose sides
            have this many pixels, as Pillow does.

    Returns:
        Photograph | None: None where the file is no JPEG, seems to be cut, is
        to be turned, or has other colours than asked for.

    Raises:
        Exception: Those of Pillow, if the header is damaged.
    """
    # What comes after the end, or is missing there, is left to Pillow.
    if not (content.startswith(b'\xff\xd8\xff')
            and content.endswith(b'\xff\xd9')):
        return None
    with without_limit(), Image.open(BytesIO(content)) as file:
        (width, height), mode, info = file.size, file.mode, file.info
        if file.format != 'JPEG' or not (mode == 'L' or
                                         (mode, channels) == ('RGB', 3)):
            return None
        if 'exif' in info or 'xmp' in info:
            try:
                if file.getexif().get(EXIF_ORIENTATION, 1) != 1:
                    return None
            except Exception:  # broken metadata
                return None
    scale = 1
    if min_side is not None:
        most = max(min(height, width) // min_side, 1)
        scale = next(scale for scale in SCALES if scale <= most)
    # Rounded up.
    shape = -(-height // scale), -(-width // scale)
    return Photograph(content, shape, scale, channels)
