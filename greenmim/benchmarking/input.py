# Copyright (c) greenmim authors. All rights reserved.
"""The input pipeline of a recipe with both decoders.

The photographs of scikit-image are written as files of several kinds. One
process loads them with either decoder in turn, a few images at a time, as one
data-loading worker does: reading, decoding, random crop, flip and packing. Its
CPU time is counted, which other programs change less than the time on a clock.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import cv2
import torch
from mmengine.registry import init_default_scope
from PIL import Image, ImageOps

from greenmim.datasets import ImageFolder
from greenmim.datasets.sample_photographs import load_photograph
from greenmim.datasets.seeding import SeededIndex
from .results import finish, table

# Width and height, and how Pillow writes them.
KINDS: Dict[str, Tuple[Tuple[int, int], str, Dict[str, Any]]] = {
    'JPEG, 500 x 375 px': ((500, 375), 'jpg', dict(quality=90)),
    'JPEG, 341 x 256 px': ((341, 256), 'jpg', dict(quality=90)),
    'JPEG, 2000 x 1500 px': ((2000, 1500), 'jpg', dict(quality=90)),
    'PNG, 500 x 375 px': ((500, 375), 'png', {}),
    'WebP, 500 x 375 px': ((500, 375), 'webp', dict(quality=90)),
    'TIFF, 500 x 375 px': ((500, 375), 'tif', {}),
}
PHOTOGRAPHS = 'astronaut', 'chelsea', 'coffee', 'rocket'
BEFORE, NOW = 'pillow', 'opencv'


def write_files(folder: Path) -> None:
    """Write a folder of each kind."""
    for name in PHOTOGRAPHS:
        photograph = Image.fromarray(load_photograph(name))
        for kind, (size, ending, options) in KINDS.items():
            (folder / kind).mkdir(exist_ok=True)
            ImageOps.fit(photograph, size, Image.Resampling.BICUBIC).save(
                folder / kind / f'{name}.{ending}', **options)


def pipeline(decoder: str, crop: int) -> List[dict]:
    """That of the recipes, or the one they had with Pillow."""
    scope = 'greenmim.' if decoder == NOW else ''
    return [
        dict(type='greenmim.LoadImage', decoder=decoder),
        dict(
            type=f'{scope}RandomResizedCrop',
            scale=crop,
            crop_ratio_range=(0.2, 1.0),
            backend='pillow',
            interpolation='bicubic'),
        dict(type=f'{scope}RandomFlip', prob=0.5),
        dict(type='PackInputs')
    ]


def time_kind(folder: Path, crop: int, rounds: int) -> Dict[str, List[float]]:
    """CPU seconds an image, of each decoder and round."""
    datasets = {
        decoder: ImageFolder(str(folder), pipeline(decoder, crop))
        for decoder in (BEFORE, NOW)
    }
    seconds: Dict[str, List[float]] = {decoder: [] for decoder in datasets}
    for number in range(rounds + 1):
        # The seed of the sampler's making; not part of a worker's time.
        chosen = [
            SeededIndex(index,
                        number * len(PHOTOGRAPHS) + index)
            for index in range(len(PHOTOGRAPHS))
        ]
        for decoder, dataset in datasets.items():
            start = time.process_time()
            for index in chosen:
                dataset[index]
            if number:  # the first warms up
                seconds[decoder].append(
                    (time.process_time() - start) / len(chosen))
    return seconds


def input_table(results: List[dict]) -> str:
    """Images a second of every kind."""
    rows = [[
        row['kind'], f'{row["images_per_second"][BEFORE]:.0f}',
        f'{row["images_per_second"][NOW]:.0f}', f'{row["ratio"]:.2f}x'
    ] for row in results]
    return table(['files', 'Pillow, images/s', 'OpenCV, images/s', 'faster'],
                 rows)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--crop', type=int, default=224, help='side of the images in training')
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--json', help='write the results to this file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    results = []
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name))
        for kind in KINDS:
            seconds = time_kind(Path(name, kind), args.crop, args.rounds)
            medians = {k: statistics.median(s) for k, s in seconds.items()}
            results.append(
                dict(
                    kind=kind,
                    crop=args.crop,
                    images_per_second={
                        k: 1 / s
                        for k, s in medians.items()
                    },
                    ratio=medians[BEFORE] / medians[NOW],
                    all_seconds=seconds))
    print(input_table(results))
    finish(torch.device('cpu'), results, args.json)
