# Copyright (c) greenmim authors. All rights reserved.
"""What values images hold: a range, statistics and speed of loading.

    greenmim statistics data/images --channels 13

reads images of a folder, or of zip, tar or LMDB, evenly spaced. It prints
for every band low, middle and high percentile, the shares of clipped values
and of pixels without data, and how many of the 256 levels are used; warns
of what looks wrong; and prints the lines of a config that load and normalise
the images: with a range, where their values need one, and with mean and
deviation of exactly what the model will see.
"""
import argparse
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Optional, Sequence

from greenmim.datasets import ImageArchive, ImageFolder
from greenmim.datasets.statistics import config_lines, measure, table


def parse_args(argv: Optional[Sequence[str]],
               prog: Optional[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', help='folder of images, or an archive')
    parser.add_argument(
        '--channels', type=int, default=3, help='channels of the images')
    parser.add_argument(
        '--bands',
        type=int,
        nargs='+',
        help='bands of the files that become the channels, counted from 1')
    parser.add_argument(
        '--num-images',
        type=int,
        default=1000,
        help='how many images are read at most')
    parser.add_argument(
        '--black-level',
        type=float,
        nargs='+',
        help='value that becomes 0, or one for each channel (default: as '
        'proposed)')
    parser.add_argument(
        '--white-level',
        type=float,
        nargs='+',
        help='value that becomes 255, or one for each channel (default: as '
        'proposed)')
    parser.add_argument(
        '--nodata', type=float, help='value of pixels without data')
    parser.add_argument(
        '--percentiles',
        type=float,
        nargs=2,
        default=(0.1, 99.9),
        metavar=('LOW', 'HIGH'),
        help='of the values, in percent, between which the range is proposed '
        '(default: 0.1 99.9)')
    parser.add_argument(
        '--dtype',
        choices=('uint8', 'float32'),
        default='uint8',
        help='float32 keeps precision beyond 8 bits')
    parser.add_argument(
        '--extensions',
        nargs='+',
        default=ImageFolder.EXTENSIONS,
        help='file name endings of images, .npy for example')
    return parser.parse_args(argv)


def options_of(args: argparse.Namespace) -> dict:
    """The options of LoadImage that the command line gives."""
    options: dict = {}
    if args.bands:
        options.update(bands=tuple(args.bands))
    for name in ('black_level', 'white_level'):
        levels = getattr(args, name)
        if levels:
            options[name] = levels if len(levels) > 1 else levels[0]
    if args.nodata is not None:
        options.update(nodata=args.nodata)
    if args.dtype != 'uint8':
        options.update(dtype=args.dtype)
    return options


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Print statistics of images and the lines of a config.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        prog (str, optional): The program in its help. Defaults to None, the
            script.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument does not fit.
    """
    args = parse_args(argv, prog)
    lmdb = Path(args.data) / 'data.mdb'
    is_archive = Path(args.data).is_file() or lmdb.exists()
    make_dataset = partial(
        ImageArchive if is_archive else ImageFolder,
        args.data,
        extensions=tuple(args.extensions))
    # What is printed is a config, and the log of the data set no part of it.
    with redirect_stdout(sys.stderr):
        found = measure(make_dataset, args.channels, options_of(args),
                        args.num_images, tuple(args.percentiles))
    print(f'{table(found)}\n{config_lines(found, args.channels)}')
