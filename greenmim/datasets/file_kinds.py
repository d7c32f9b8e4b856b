# Copyright (c) greenmim authors. All rights reserved.
"""Which files are images: by their ending, or by their first bytes."""
import re
from collections import Counter
from importlib.util import find_spec
from typing import Counter as CounterType
from typing import Dict, Optional, Tuple

from PIL import features

from .decoding.containers import AVIF, HEIF, JPEG_2000, PNG, TIFF

#: Endings that are read without an extra.
ALWAYS = ('.jpg', '.jpeg', '.jfif', '.jpe', '.png', '.bmp', '.ppm', '.pgm',
          '.tif', '.tiff', '.webp', '.gif', '.jp2', '.j2k')

SIGNATURE = 132
"""Bytes of a file that tell its kind."""

LISTED = 10  # kinds of files that a line names


def missing_readers() -> Dict[str, str]:
    """Endings of images that need a package which is not installed.

    Returns:
        dict[str, str]: The package that each ending needs.
    """
    missing = {}
    if find_spec('pillow_heif') is None:
        missing.update({'.heic': 'pillow-heif', '.heif': 'pillow-heif'})
    if not features.check('avif'):
        missing.update({'.avif': 'pillow 11.3 or later'})
    if find_spec('pydicom') is None:
        missing.update({'.dcm': 'pydicom'})
    return missing


MISSING = missing_readers()

EXTENSIONS = ALWAYS + tuple(
    ending
    for ending in ('.heic', '.heif', '.avif', '.dcm') if ending not in MISSING)
"""Endings of the images that can be read here."""


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, '' for none.

    Digits after a dot are none: DICOM files are often named by numbers.
    """
    match = re.search(r'.(\.[^.\s/]*)$', name.lower())
    return match[1] if match and re.search('[^.0-9]', match[1]) else ''


def kind_of(head: bytes) -> Optional[str]:
    """The ending of the kind of image that begins with these bytes.

    Args:
        head (bytes): The first :data:`SIGNATURE` bytes of a file.
    """
    if head.startswith(b'\xff\xd8\xff'):
        return '.jpg'
    if head.startswith(PNG):
        return '.png'
    if head.startswith(TIFF):
        return '.tif'
    if head.startswith((b'GIF87a', b'GIF89a')):
        return '.gif'
    if head.startswith(b'BM') and head[6:10] == bytes(4):
        return '.bmp'
    if head.startswith(b'RIFF') and head[8:12] == b'WEBP':
        return '.webp'
    if head.startswith(JPEG_2000):
        return '.jp2'
    if head[4:8] == b'ftyp' and head[8:12] in HEIF:
        return '.heic'
    if head[4:8] == b'ftyp' and head[8:12] in AVIF:
        return '.avif'
    if head[128:132] == b'DICM':
        return '.dcm'
    if re.match(rb'P[1-6]\s', head):
        return '.ppm'
    return None


class FileChoice:
    """Decides which files are images, and counts the others.

    Args:
        extensions (tuple[str]): Endings of images, in lower case.
        by_signature (bool): Whether files without an ending are images if
            their first bytes say so.
    """

    def __init__(self, extensions: Tuple[str, ...],
                 by_signature: bool) -> None:
        self.extensions = extensions
        self.by_signature = by_signature
        self.left_out: CounterType[str] = Counter()

    def by_name(self, name: str) -> Optional[bool]:
        """Whether a file is an image; None if its first bytes decide."""
        if name.lower().endswith(self.extensions):
            return True
        ending = ending_of(name)
        if self.by_signature and not ending:
            return None
        self.left_out[ending] += 1
        return False

    def by_head(self, head: bytes) -> bool:
        """Whether a file without an ending is an image."""
        kind = kind_of(head)
        if kind is None or kind in MISSING:
            self.left_out[kind or ''] += 1
            return False
        return True


def describe(left_out: Dict[str, int]) -> str:
    """Files that were left out, as in ``3 .heic (install pillow-heif)``.

    Args:
        left_out (dict[str, int]): The number of files of each ending.
    """
    parts = []
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    shown = [
        one for one in ordered if one[0] in MISSING or one in ordered[:LISTED]
    ]
    for ending, number in shown:
        part = f'{number:,} {ending or "without an ending"}'
        if ending in MISSING:
            part += f' (install {MISSING[ending]})'
        parts.append(part)
    rest = sum(left_out.values()) - sum(number for _, number in shown)
    if rest:
        parts.append(f'{rest:,} with other endings')
    return ', '.join(parts)


def summary(root: str, number: int, left_out: Dict[str, int]) -> str:
    """The line that says what was taken of a folder, and what was not."""
    rest = f'; left out: {describe(left_out)}' if left_out else ''
    return f'{root}: {number:,} image{"" if number == 1 else "s"}{rest}'
