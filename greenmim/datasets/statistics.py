# Copyright (c) greenmim authors. All rights reserved.
"""What values the images of a folder hold, and what the model will see."""
import time
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.fileio import get

from .decoding import Decoder
from .decoding.containers import read_raster
from .decoding.levels import count_levels, find_range, to_levels, valid_values
from .transforms import LoadImage, UnreadableImageError

PIXELS = 4096  # of an image, which stand for all of it
FEW_LEVELS = 64
MANY_CLIPPED = 0.02
# What programs often write where they have no data.
SENTINELS = (-9999., -32768., -99999., float(np.finfo(np.float32).min), 1e20)


class RawPixels:
    """A transform that loads some pixels of an image as they are stored.

    Args:
        decoder (Decoder): Chooses the bands.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __call__(self, results: dict) -> dict:
        try:
            content = results.pop('img_bytes', None)
            if content is None:
                content = get(results['img_path'])
            raster = read_raster(content, self.decoder.max_pixels)
            values, _ = self.decoder.choose_bands(raster)
        except Exception as error:
            raise UnreadableImageError(
                f'cannot read the image {results["img_path"]}: '
                f'{error}') from error
        nodata = self.decoder.nodata
        nodata = raster.nodata if nodata is None else nodata
        pixels = values.reshape(-1, values.shape[-1])
        some = np.random.default_rng(0).permutation(len(pixels))[:PIXELS]
        return dict(
            pixels=pixels[some],
            nodata=nodata,
            is_colour=raster.is_colour,
            window=raster.window)


@dataclass
class Band:
    """The values of one band over a sample of images.

    Args:
        percentiles (tuple[float, float, float]): The low one, the median and
            the high one.
        clipped (float): The share of values outside of the range.
        nodata (float): The share of pixels without data.
        levels (int): How many of the 256 levels are used.
        loses (bool): Whether few levels stand for many values.
    """
    percentiles: Tuple[float, float, float]
    clipped: float
    nodata: float
    levels: int
    loses: bool


@dataclass
class Statistics:
    """What :func:`measure` finds.

    Args:
        kinds (list[str]): Number types of the files.
        options (dict): Options of :class:`LoadImage` beside ``channels``,
            with the range that is proposed.
        bands (list[Band]): The bands that become the channels.
        mean (list[float]): Of every channel, on the scale 0 to 255, red
            first.
        std (list[float]): The same.
        images (int): Images of the sample.
        of (int): Images of the data set.
        speed (float): Images a second that one process decodes.
        warnings (list[str]): What deserves a look.
    """
    kinds: List[str]
    options: dict
    bands: List[Band]
    mean: List[float]
    std: List[float]
    images: int
    of: int
    speed: float
    warnings: List[str] = field(default_factory=list)


def measure(
    make_dataset: Callable[[Sequence[Any]], Any],
    channels: int,
    options: dict,
    num_images: int = 1000,
    percentiles: Tuple[float, float] = (0.1, 99.9)
) -> Statistics:
    """Look at images of a data set, evenly spaced.

    Where the values do not fit the scale 0 to 255, or fill little of it, a
    range is proposed: the given percentiles over the sample, one range for
    colours, whose balance it would change, and one for each band elsewhere.

    Args:
        make_dataset (Callable): Makes the data set of a pipeline.
        channels (int): Channels of the images.
        options (dict): Other options of :class:`LoadImage`; with a range in
            them none is proposed.
        num_images (int): How many images are read at most.
        percentiles (tuple[float, float]): Of the values, in percent.

    Returns:
        Statistics: Mean and deviation are those of what the model will see.
    """
    dataset = make_dataset([RawPixels(Decoder(channels, **options))])
    chosen = sample_indices(len(dataset), num_images)
    samples = [dataset[i] for i in chosen]
    kinds = sorted({str(sample['pixels'].dtype) for sample in samples})
    if not {'black_level', 'white_level'} & set(options):
        options = dict(options, **_propose(samples, percentiles))
    bands = _describe(samples, options, percentiles)

    dataset = make_dataset([LoadImage(channels, **options)])
    total = squares = np.zeros(channels)
    count, seconds = 0, 0.
    for i in chosen:
        start = time.perf_counter()
        image = dataset[i]['img']
        seconds += time.perf_counter() - start
        pixels = image.reshape(-1, channels).astype(np.float64)
        count += len(pixels)
        total = total + pixels.sum(0)
        squares = squares + np.square(pixels).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if channels == 3:  # images are loaded as BGR
        mean, std = mean[::-1], std[::-1]
    found = Statistics(kinds, options, bands, mean.tolist(), std.tolist(),
                       len(chosen), len(dataset),
                       len(chosen) / seconds)
    found.warnings += _warnings(found)
    for value in sorted(
            set(SENTINELS) & {
                extreme
                for column in _columns(samples) if len(column)
                for extreme in (column.min(), column.max())
            }):
        found.warnings.append(f'does {value:g} stand for "no data"? Then set '
                              f'nodata={value:g}')
    return found


def sample_indices(size: int, number: int) -> List[int]:
    """Indices of at most ``number`` samples, evenly spaced."""
    number = min(number, size)
    return [i * size // number for i in range(number)]


def _valid(sample: dict) -> np.ndarray:
    pixels = sample['pixels']
    valid = valid_values(pixels, sample['nodata'])
    return np.ones(pixels.shape, bool) if valid is None else valid


def _columns(samples: Sequence[dict]) -> List[np.ndarray]:
    """The values of every band that are data, over all images."""
    number = max(sample['pixels'].shape[-1] for sample in samples)
    columns = []
    for band in range(number):
        parts = [
            sample['pixels'][_valid(sample)[:, band], band]
            for sample in samples if sample['pixels'].shape[-1] > band
        ]
        columns.append(np.concatenate([part.astype(float) for part in parts]))
    return columns


def _propose(samples: Sequence[dict], percentiles: Tuple[float,
                                                         float]) -> dict:
    """A range where one is needed, in the order of the bands."""
    columns = _columns(samples)
    levels = []
    try:
        for sample in samples:
            valid = _valid(sample)
            pixels = sample['pixels']
            levels.append(
                to_levels(pixels, valid,
                          *_range_of(sample, pixels, valid, {}, 0))[valid])
    except ValueError:  # the values need one
        pass
    else:
        used = count_levels(np.concatenate(levels), None)
        if not _loses(np.concatenate(columns), used):
            return {}
    if all(sample['is_colour'] for sample in samples) or len(columns) == 1:
        columns = [np.concatenate(columns)]
    ranges = [_rounded(column, percentiles) for column in columns]
    black, white = (list(levels) for levels in zip(*ranges))
    if len(ranges) == 1:
        black, white = black[0], white[0]
    return dict(black_level=black, white_level=white)


def _loses(values: np.ndarray, levels: int) -> bool:
    """Whether few levels stand for many values."""
    return levels < FEW_LEVELS and levels < len(np.unique(values))


def _rounded(values: np.ndarray,
             percentiles: Tuple[float, float]) -> Tuple[float, float]:
    """The percentiles, rounded outwards to a hundredth of their distance."""
    if not len(values):
        return 0, 1
    low, high = np.percentile(values, percentiles)
    if low == high:
        return float(low), float(low) + 1
    step = 10.**np.floor(np.log10((high - low) / 100))
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    digits = max(0, -int(np.log10(step)))
    low, high = round(float(low), digits), round(float(high), digits)
    whole = low.is_integer() and high.is_integer()
    return (int(low), int(high)) if whole else (low, high)


def _describe(samples: Sequence[dict], options: dict,
              percentiles: Tuple[float, float]) -> List[Band]:
    columns = _columns(samples)
    bands = []
    for band, values in enumerate(columns):
        inside: List[np.ndarray] = []
        clipped = nodata = total = 0
        for sample in samples:
            if sample['pixels'].shape[-1] <= band:
                continue
            pixels = sample['pixels'][:, band:band + 1]
            valid = _valid(sample)[:, band:band + 1]
            black, white = _range_of(sample, pixels, valid, options, band)
            inside.append(to_levels(pixels, valid, black, white)[valid])
            data = pixels[valid]
            clipped += int(((data < black) | (data > white)).sum())
            nodata += int((~valid).sum())
            total += len(pixels)
        low, middle, high = (
            np.percentile(values, [percentiles[0], 50, percentiles[1]])
            if len(values) else [np.nan] * 3)
        levels = count_levels(np.concatenate(inside), None)
        bands.append(
            Band((low, middle, high), clipped / max(total - nodata, 1),
                 nodata / total, levels, _loses(values, levels)))
    return bands


def _range_of(sample: dict, pixels: np.ndarray, valid: np.ndarray,
              options: dict, band: int) -> Tuple[np.ndarray, np.ndarray]:
    levels: Any = options.get('black_level'), options.get('white_level')
    black, white = (
        level[band] if np.ndim(level) else level for level in levels)
    if black is None and white is None and sample['window'] is not None:
        low, high = sample['window']
        return np.asarray(low), np.asarray(high)
    return find_range(pixels, valid, black, white)


def _warnings(found: Statistics) -> List[str]:
    faults = [
        ('constant; leave them out by bands=',
         lambda band: not band.percentiles[0] < band.percentiles[2]),
        ('shown by few of the 256 levels; narrow black_level and white_level',
         lambda band: band.loses),
        ('clipped in more than 2 % of the values; widen black_level and '
         'white_level', lambda band: band.clipped > MANY_CLIPPED),
        ('without data in more than half of the pixels',
         lambda band: band.nodata > 0.5),
    ]
    texts = []
    for text, is_faulty in faults:
        numbers = [
            str(number) for number, band in enumerate(found.bands, 1)
            if is_faulty(band)
        ]
        if numbers:
            texts.append(f'bands {", ".join(numbers)} are {text}')
    if len(found.kinds) > 1:
        texts.append(f'the files hold {", ".join(found.kinds)}, which share '
                     'one range')
    return texts


def config_lines(found: Statistics,
                 channels: int,
                 unit_size: Optional[int] = 32) -> str:
    """The lines of a config for images with these statistics."""
    options = dict(channels=channels, **found.options)
    load = ', '.join(f'{name}={value!r}' for name, value in options.items())
    numbers = [
        ', '.join(f'{value:.3f}' for value in values)
        for values in (found.mean, found.std)
    ]
    return (f"load_image = dict(type='greenmim.LoadImage', {load})\n"
            'data_preprocessor = dict(\n'
            '    _delete_=True,\n'
            "    type='greenmim.ChannelDataPreprocessor',\n"
            f'    mean=[{numbers[0]}],\n'
            f'    std=[{numbers[1]}],\n'
            f'    to_rgb={channels == 3})\n'
            'model = dict(\n'
            f'    backbone=dict(in_channels={channels}),\n'
            f'    neck=dict(out_channels={unit_size}**2 * {channels}))')


def table(found: Statistics) -> str:
    """The bands, a line each, as comments of a config."""
    lines = [
        f'# {found.images} of {found.of} images, decoded at '
        f'{found.speed:.0f} images/s by one process; {", ".join(found.kinds)}',
        f'# {"band":>5} {"low":>10} {"median":>10} {"high":>10} '
        f'{"clipped":>8} {"no data":>8} {"levels":>7}'
    ]
    for number, band in enumerate(found.bands, 1):
        low, middle, high = band.percentiles
        lines.append(f'# {number:>5} {low:>10.5g} {middle:>10.5g} '
                     f'{high:>10.5g} {band.clipped:>8.2%} '
                     f'{band.nodata:>8.2%} {band.levels:>7}')
    lines += [f'# warning: {text}' for text in found.warnings]
    return '\n'.join(lines)
