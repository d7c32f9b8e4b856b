# Copyright (c) greenmim authors. All rights reserved.
"""Smaller copies of images, which long runs decode faster."""
import io
import math
import os
import statistics
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import (Callable, Dict, Iterator, List, Literal, NamedTuple,
                    Optional, Tuple)

import numpy as np
from PIL import Image

from greenmim.datasets import (ImageArchive, ImageFolder, LoadImage,
                               UnreadableImageError)

SAMPLES = 32  # images whose decoding is timed
CHUNK = 64  # images held in memory at once


class Prepared(NamedTuple):
    """What :func:`prepare` has written."""
    out: Path
    images: int
    left_out: Dict[str, str]  # images that cannot be read, and why
    pixels: Tuple[int, int]  # before and after
    bytes: Tuple[int, int]  # before and after
    decoding: Tuple[float, float]  # seconds of an image, before and after
    error: float  # mean error of a value by the compression, of 255


def prepare(data: str,
            out: str,
            *,
            side: int = 512,
            quality: int = 92,
            format: Literal['jpeg', 'webp'] = 'jpeg',
            channels: Literal[1, 3] = 3) -> Prepared:
    """Write smaller copies of images, for runs that read them many times.

    Images are scaled down to a shorter side and compressed; smaller ones keep
    their size. What that costs in pixels and what it gains is printed. Values
    are stored in 8 bits, so images that need more are better left as they
    are.

    Args:
        data (str): The folder of images, or a zip or tar archive or LMDB.
        out (str): The folder to write, or an archive if it ends in .tar,
            which is faster to read on network drives.
        side (int): Shorter side in pixels; twice the size of training leaves
            random crops their detail. Defaults to 512.
        quality (int): Of the compression, 1 to 100. Defaults to 92.
        format (str): Of the files. Defaults to ``'jpeg'``.
        channels (int): 1 for grey images. Defaults to 3.

    Returns:
        Prepared: Numbers of images, pixels and bytes, and times.

    Raises:
        FileExistsError: If there is something at OUT, or at OUT.part, where
            an interrupted call has written.
        FileNotFoundError: If there is no image.
        ValueError: If ``side`` or ``quality`` is out of range.
    """
    if side < 1 or not 1 <= quality <= 100:
        raise ValueError('expected a side of 1 or more and a quality of 1 to '
                         f'100, got {side} and {quality}')
    target = Path(out).expanduser()
    part = target.with_name(target.name + '.part')
    for path in target, part:
        if path.exists():
            raise FileExistsError(
                'expected an OUT that is yet to be written, but there is '
                f'{path}; remove it, or name another OUT')
    source = Path(data).expanduser()
    is_archive = source.is_file() or (source / 'data.mdb').is_file()
    kind = ImageArchive if is_archive else ImageFolder
    dataset = kind(str(source), [LoadImage(channels)])
    root = str(source) if is_archive else dataset.data_root
    sampled = {
        i * len(dataset) // SAMPLES
        for i in range(min(SAMPLES, len(dataset)))
    }
    left_out: Dict[str, str] = {}
    number, pixels, sizes = 0, np.zeros(2, int), np.zeros(2, int)
    times: List[Tuple[float, float]] = []
    errors: List[float] = []

    def shrink(index: int) -> Optional[Tuple[bytes, List[int], float]]:
        """The content, pixels before and after, and mean error of an image."""
        info = dataset.get_data_info(index)
        try:
            image = dataset.prepare_data(index)['img']
        except UnreadableImageError as reason:
            left_out[info['img_path']] = str(reason)
            return None
        # Files are loaded as BGR.
        full = Image.fromarray(image if channels == 1 else image[..., ::-1])
        share = min(1., side / min(full.size))
        small = full if share == 1 else full.resize(
            [round(length * share)
             for length in full.size], Image.Resampling.BICUBIC)
        file = io.BytesIO()
        small.save(file, format, quality=quality)
        error = 0.
        if index in sampled:
            decoded = np.asarray(Image.open(file), 'float32')
            error = float(np.abs(decoded - np.asarray(small)).mean())
        return (file.getvalue(), [math.prod(full.size),
                                  math.prod(small.size)], error)

    def seconds(info: dict) -> float:
        start = time.perf_counter()
        dataset.pipeline(info)
        return time.perf_counter() - start

    with _writer(part, target.suffix == '.tar') as write:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(dataset), CHUNK):
                chunk = range(start, min(start + CHUNK, len(dataset)))
                for index, found in zip(chunk, pool.map(shrink, chunk)):
                    if found is None:
                        continue
                    content, sides, error = found
                    path = dataset.get_data_info(index)['img_path']
                    write(f'{os.path.relpath(path, root)}.{format}', content)
                    number += 1
                    pixels += sides
                    sizes[1] += len(content)
                    if not is_archive:
                        sizes[0] += os.path.getsize(path)
                    if index in sampled:
                        errors.append(error)
                        begin = time.perf_counter()
                        dataset.prepare_data(index)
                        times.append(
                            (time.perf_counter() - begin,
                             seconds(dict(img_path=path, img_bytes=content))))
    part.rename(target)
    if is_archive:
        sizes[0] = os.path.getsize(source if source.is_file() else source /
                                   'data.mdb')
    result = Prepared(target, number, left_out, tuple(pixels.tolist()),
                      tuple(sizes.tolist()),
                      tuple(map(statistics.median, zip(*times))),
                      statistics.mean(errors))
    _show(result)
    return result


@contextmanager
def _writer(path: Path,
            is_archive: bool) -> Iterator[Callable[[str, bytes], None]]:
    """Writes named files into a folder or an uncompressed tar archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_archive:

        def write_file(name: str, content: bytes) -> None:
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

        path.mkdir()
        yield write_file
        return
    with tarfile.open(path, 'w') as archive:

        def write_member(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        yield write_member


def _show(result: Prepared) -> None:
    (full, small), (before, after) = result.pixels, result.bytes
    slow, fast = (1000 * seconds for seconds in result.decoding)
    print(f'{result.out}: {result.images} images')
    print(f'pixels:   {small / full:.0%} of {full / 1e6:.1f} million')
    print(f'bytes:    {before / 2**20:.1f} MiB before, '
          f'{after / 2**20:.1f} MiB now')
    print(f'decoding: {slow:.1f} ms an image before, {fast:.1f} ms now')
    print(f'error:    {result.error:.2f} of 255 in the mean, by compression')
    for name, reason in result.left_out.items():
        print(f'left out: {name}: {reason}')
