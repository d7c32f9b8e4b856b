# Copyright (c) greenmim authors. All rights reserved.
"""Mean and standard deviation of each channel, and how fast images load.

    python tools/misc/channel_statistics.py data/images --channels 13

reads images of a folder, or of zip, tar or LMDB, evenly spaced, and prints
the lines of a config that normalise them, and the images that one worker
decodes in a second.
"""
import argparse
import time
from pathlib import Path
from typing import Sequence

import numpy as np

from greenmim.datasets import ImageArchive, ImageFolder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Mean and standard deviation of the channels of images')
    parser.add_argument('data', help='folder of images, or an archive')
    parser.add_argument(
        '--channels', type=int, default=3, help='channels of the images')
    parser.add_argument(
        '--num-images',
        type=int,
        default=1000,
        help='how many images are read at most')
    parser.add_argument(
        '--white-level',
        type=int,
        default=65535,
        help='value of a 16-bit image that becomes 255')
    parser.add_argument(
        '--extensions',
        nargs='+',
        default=ImageFolder.EXTENSIONS,
        help='file name endings of images, .npy for example')
    return parser.parse_args()


def config_lines(mean: Sequence[float], std: Sequence[float],
                 white_level: int) -> str:
    """The lines of a config for images with these statistics."""
    channels = len(mean)
    load = f"dict(type='greenmim.LoadImage', channels={channels}"
    if white_level != 65535:
        load += f', white_level={white_level}'
    kind = 'mmpretrain.SelfSupDataPreprocessor'
    if channels not in (1, 3):
        kind = 'greenmim.ChannelDataPreprocessor'
    numbers = [
        ', '.join(f'{value:.3f}' for value in values) for values in (mean, std)
    ]
    return (f'# in the pipeline: {load})\n'
            'data_preprocessor = dict(\n'
            '    _delete_=True,\n'
            f"    type='{kind}',\n"
            f'    mean=[{numbers[0]}],\n'
            f'    std=[{numbers[1]}],\n'
            f'    to_rgb={channels == 3})\n'
            f'model = dict(\n'
            f'    backbone=dict(in_channels={channels}),\n'
            f'    neck=dict(out_channels={32 * 32 * channels}))')


def main() -> None:
    args = parse_args()
    load = dict(
        type='greenmim.LoadImage',
        channels=args.channels,
        white_level=args.white_level)
    lmdb = Path(args.data) / 'data.mdb'
    kind = ImageFolder
    if Path(args.data).is_file() or lmdb.exists():
        kind = ImageArchive
    dataset = kind(args.data, [load], extensions=args.extensions)
    number = min(args.num_images, len(dataset))
    count, total, squares, seconds = 0, 0., 0., 0.
    for i in range(number):
        start = time.perf_counter()
        image = dataset[i * len(dataset) // number]['img']
        seconds += time.perf_counter() - start
        pixels = image.reshape(-1, args.channels).astype(np.float64)
        count += len(pixels)
        total = total + pixels.sum(0)
        squares = squares + np.square(pixels).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if args.channels == 3:  # of images loaded as BGR
        mean, std = mean[::-1], std[::-1]
    print(f'# {number} of {len(dataset)} images, decoded at '
          f'{number / seconds:.0f} images/s by one process')
    print(config_lines(mean, std, args.white_level))


if __name__ == '__main__':
    main()
