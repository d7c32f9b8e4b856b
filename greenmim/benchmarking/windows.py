# Copyright (c) greenmim authors. All rights reserved.
"""Loading windows of large GeoTIFF files against tiles cut before.

The same made images are written as GeoTIFF, in blocks and in strips, and cut
into JPEG files of the size of a window. One process loads from each in turn,
a few images at a time, as one data-loading worker does: decoding, random crop
and packing. Its CPU time is counted, which other programs change little.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import cv2
import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from greenmim.datasets import ImageFolder, ImageWindows
from greenmim.datasets.seeding import SeededIndex
from .results import finish, table

KINDS: Dict[str, dict] = {
    'blocks of 256 x 256, deflate':
    dict(tiled=True, blockxsize=256, blockysize=256, compress='deflate'),
    'strips of 16 rows, deflate':
    dict(tiled=False, blockysize=16, compress='deflate'),
    'strips, not compressed':
    dict(tiled=False),
}
TILES = 'JPEG tiles'
BLOCK = 8  # images a turn


def made_image(side: int, seed: int) -> np.ndarray:
    """Random colours with smooth transitions and some noise, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (side // 32, side // 32, 3), dtype=np.uint8)
    smooth = cv2.resize(cells, (side, side), interpolation=cv2.INTER_LINEAR)
    noise = rng.integers(0, 8, smooth.shape)
    return (smooth + noise).clip(0, 255).astype(np.uint8)


def write_files(folder: Path, side: int, number: int, window: int) -> None:
    """Write a folder of each kind."""
    import rasterio
    for index in range(number):
        image = made_image(side, index)
        for name, options in KINDS.items():
            (folder / name).mkdir(exist_ok=True, parents=True)
            with rasterio.open(
                    folder / name / f'{index}.tif',
                    'w',
                    driver='GTiff',
                    height=side,
                    width=side,
                    count=3,
                    dtype='uint8',
                    photometric='RGB',
                    interleave='pixel',
                    **options) as file:
                file.write(image.transpose(2, 0, 1))
        (folder / TILES).mkdir(exist_ok=True)
        for top in range(0, side, window):
            for left in range(0, side, window):
                tile = image[top:top + window, left:left + window]
                Image.fromarray(tile).save(
                    folder / TILES / f'{index}_{top}_{left}.jpg', quality=90)


def time_loading(folder: Path, window: int, crop: int,
                 rounds: int) -> Dict[str, List[float]]:
    """CPU seconds an image, of every kind and round."""
    pipeline: List[Any] = [
        dict(type='greenmim.LoadImage'),
        dict(type='RandomResizedCrop', scale=crop),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs')
    ]
    datasets: Dict[str, ImageFolder] = {
        name: ImageWindows(str(folder / name), pipeline, window_size=window)
        for name in KINDS
    }
    datasets[TILES] = ImageFolder(str(folder / TILES), pipeline)
    rng = np.random.default_rng(0)
    seconds: Dict[str, List[float]] = {name: [] for name in datasets}
    for number in range(rounds + 1):
        for name, dataset in datasets.items():
            chosen = rng.integers(len(dataset), size=BLOCK).tolist()
            start = time.process_time()
            for index in chosen:
                dataset[SeededIndex(index, number)]
            if number:  # the first warms up
                seconds[name].append((time.process_time() - start) / BLOCK)
    return seconds


def windows_table(results: List[dict]) -> str:
    """Images a second of every kind."""
    rows = [[
        row['kind'], f'{row["images_per_second"]:.0f}',
        f'{row["share_of_tiles"]:.2f}'
    ] for row in results]
    return table(['files', 'images/s', 'of JPEG tiles'], rows)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--side', type=int, default=6144, help='of the images, in pixels')
    parser.add_argument(
        '--files', type=int, default=3, help='number of images')
    parser.add_argument('--window', type=int, default=512)
    parser.add_argument('--crop', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--json', help='write the results to this file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), args.side, args.files, args.window)
        seconds = time_loading(
            Path(folder), args.window, args.crop, args.rounds)
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    results = [
        dict(
            kind=name,
            side=args.side,
            files=args.files,
            window=args.window,
            crop=args.crop,
            images_per_second=1 / medians[name],
            share_of_tiles=medians[TILES] / medians[name],
            all_seconds=seconds[name]) for name in seconds
    ]
    print(windows_table(results))
    finish(torch.device('cpu'), results, args.json)
