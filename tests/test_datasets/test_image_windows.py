# Copyright (c) greenmim authors. All rights reserved.
"""Windows of large GeoTIFF files against the whole array."""
import pickle
import subprocess
import sys

import numpy as np
import pytest
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from greenmim.datasets import ImageWindows, LoadImage
from greenmim.datasets.seeding import SeededIndex
from greenmim.registry import DATASETS
from tests.micro import micro_runner

rasterio = pytest.importorskip('rasterio')
from rasterio.enums import ColorInterp  # noqa: E402
from rasterio.errors import NotGeoreferencedWarning  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    f'ignore::{NotGeoreferencedWarning.__module__}.NotGeoreferencedWarning')

LOAD = [dict(type='greenmim.LoadImage')]


def write(path, values, **options):
    height, width, count = values.shape
    with rasterio.open(
            path,
            'w',
            driver='GTiff',
            height=height,
            width=width,
            count=count,
            dtype=values.dtype,
            **options) as file:
        file.write(values.transpose(2, 0, 1))
        if count == 3:
            file.colorinterp = (ColorInterp.red, ColorInterp.green,
                                ColorInterp.blue)


def position_image(height, width):
    """Every pixel says where it is: no two windows are alike."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 251, x % 241, (y // 251 * 7 + x // 241) % 256],
                    -1).astype(np.uint8)


KINDS = [
    dict(tiled=True, blockxsize=64, blockysize=64, compress='deflate'),
    dict(tiled=True, blockxsize=128, blockysize=64, compress='lzw'),
    dict(tiled=False, interleave='band'),
]


@pytest.mark.parametrize('options', KINDS)
def test_an_epoch_covers_the_area_by_windows_of_the_image(options, tmp_path):
    whole = position_image(300, 420)
    write(tmp_path / 'large.tif', whole, **options)
    dataset = ImageWindows(str(tmp_path), LOAD, window_size=100)
    assert len(dataset) == 6 * 9
    seen = np.zeros(whole.shape[:2], bool)
    places = set()
    for i in range(len(dataset)):
        window = dataset[SeededIndex(i, 7 * i)]['img'][..., ::-1]
        assert window.shape == (100, 100, 3)
        y, x = find(window, whole)
        places.add((y, x))
        seen[y:y + 100, x:x + 100] = True
        cell = i // 9 * 50, i % 9 * 50
        assert y <= cell[0] < y + 100 and x <= cell[1] < x + 100
    assert seen.all()
    assert len({y % 50 for y, _ in places}) > 5  # no fixed grid


def find(window, whole):
    """Where a window is in the image."""
    for y in range(whole.shape[0] - 99):
        row = whole[y]
        for x in np.flatnonzero((row == window[0, 0]).all(-1)):
            if np.array_equal(whole[y:y + 100, x:x + 100], window):
                return y, int(x)
    raise AssertionError('no part of the image')


def test_a_window_depends_on_seed_and_index_alone(tmp_path):
    write(tmp_path / 'large.tif', position_image(200, 200), **KINDS[0])
    dataset = ImageWindows(str(tmp_path), LOAD, window_size=64)
    again = pickle.loads(pickle.dumps(dataset))
    one, other = (data[SeededIndex(5, 1)]['img'] for data in (dataset, again))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, dataset[SeededIndex(5, 2)]['img'])
    order = [SeededIndex(i, i) for i in (9, 3, 30, 12)]
    alone = [dataset[i]['img'] for i in order]
    loader = DataLoader(dataset, batch_size=None, sampler=order, num_workers=2)
    for sample, expected in zip(loader, alone):
        assert np.array_equal(sample['img'], expected)


def test_regions_without_data_are_avoided(tmp_path):
    values = np.random.default_rng(0).random((256, 256, 5), np.float32)
    values[:, 100:] = -9999  # 60 %
    write(tmp_path / 'a.tif', values, nodata=-9999, **KINDS[0])
    load = [dict(type='greenmim.LoadImage', channels=5)]
    dataset = ImageWindows(str(tmp_path), load, window_size=64, min_data=.75)
    for i in range(len(dataset)):
        window = dataset[SeededIndex(i, i)]['img']
        assert (window > 0).any(-1).mean() >= .7
    nothing = tmp_path / 'nothing'
    nothing.mkdir()
    write(nothing / 'a.tif', values[:, 128:], nodata=-9999, **KINDS[0])
    with pytest.raises(ValueError, match='none had 50% of data.*min_data'):
        ImageWindows(str(nothing), load, window_size=64)


def test_ranges_and_bands_are_those_of_the_loading(tmp_path):
    values = np.random.default_rng(0).integers(0, 3000, (80, 90, 13), np.int16)
    write(tmp_path / 'a.tif', values, **KINDS[0])
    load = dict(
        type='greenmim.LoadImage',
        bands=(4, 3, 2),
        white_level=3000,
        dtype='float32')
    dataset = ImageWindows(str(tmp_path), [load], window_size=512)
    image = dataset[0]['img']  # smaller than a window, so all of it
    expected = values[..., [1, 2, 3]] / 3000 * 255
    np.testing.assert_allclose(image, expected, atol=1e-3)
    direct = LoadImage(
        bands=(4, 3, 2), white_level=3000, dtype='float32')(
            dict(img_path=str(tmp_path / 'a.tif')))
    assert np.array_equal(image, direct['img'])


def test_a_damaged_file_is_left_out_and_listed(tmp_path):
    write(tmp_path / 'good.tif', position_image(64, 64), **KINDS[0])
    (tmp_path / 'bad.tif').write_bytes(b'II*\0 no image')
    pipeline = [*LOAD, dict(type='mmpretrain.PackInputs')]
    dataset = ImageWindows(str(tmp_path), pipeline, window_size=64)
    samples = [
        dataset[SeededIndex(i, i)]['data_samples']
        for i in range(len(dataset))
    ]
    skipped = [s.skipped_images for s in samples if 'skipped_images' in s]
    assert len(skipped) == 1
    assert 'bad.tif' in next(iter(skipped[0]))


def test_without_rasterio_the_line_that_installs_it(tmp_path):
    write(tmp_path / 'good.tif', position_image(64, 64), **KINDS[0])
    code = ('import sys\nsys.modules["rasterio"] = None\n'
            'from greenmim.datasets import ImageWindows\n'
            'try:\n    ImageWindows(sys.argv[1])\n'
            'except ImportError as error:\n    print(error)')
    run = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True)
    assert 'pip install rasterio' in run.stdout


@pytest.mark.parametrize('options, message', [
    (dict(cell_size=65), 'cell_size <= window_size, got 65 and 64'),
    (dict(min_data=2), 'min_data within 0 and 1, got 2'),
])
def test_bad_options(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        DATASETS.build(
            dict(
                type='greenmim.ImageWindows',
                data_root=str(tmp_path),
                window_size=64,
                **options))


def test_pixels_without_data_by_a_mask_or_opacity(tmp_path):
    whole = position_image(256, 256)
    write(tmp_path / 'mask.tif', whole, **KINDS[0])
    with rasterio.open(tmp_path / 'mask.tif', 'r+') as file:
        file.write_mask(np.arange(256)[None] < np.full((256, 1), 100))
    opacity = np.where(np.arange(256) < 100, 255, 0).astype(np.uint8)
    opacity = np.broadcast_to(opacity[None, :, None], (256, 256, 1))
    write(
        tmp_path / 'opacity.tif',
        np.concatenate([whole, opacity], -1),
        photometric='RGB',
        alpha='YES',
        **KINDS[0])
    dataset = ImageWindows(str(tmp_path), LOAD, window_size=64, min_data=.75)
    for i in range(0, len(dataset), 3):
        window = dataset[SeededIndex(i, i)]['img'][..., ::-1]
        x = int(window[0, 0, 1])  # columns before 241 say where they are
        assert x + 48 <= 100


def test_bits_and_white_as_zero_are_those_of_the_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 64, 1), np.uint16)
    write(tmp_path / 'a.tif', pixels, nbits=12, photometric='MINISWHITE')
    image = ImageWindows(
        str(tmp_path), [dict(type='greenmim.LoadImage', channels=1)])[0]['img']
    assert abs(image - (255 - pixels[..., 0] / 4095 * 255)).max() <= 1
    direct = LoadImage(channels=1)(dict(img_path=str(tmp_path / 'a.tif')))
    assert np.array_equal(image, direct['img'])


@pytest.mark.parametrize('options, kind, message', [
    (dict(photometric='PALETTE'), np.uint8, 'got palette; convert'),
    (dict(), np.complex64, 'complex64'),
])
def test_pixels_that_are_no_values(options, kind, message, tmp_path):
    pixels = np.ones((64, 64, 1), kind)
    write(tmp_path / 'a.tif', pixels, **options)
    if options:
        with rasterio.open(tmp_path / 'a.tif', 'r+') as file:
            file.write_colormap(1, {0: (0, 0, 0, 255), 1: (9, 8, 7, 255)})
    with pytest.raises(ValueError, match=message):
        ImageWindows(str(tmp_path), LOAD)


def test_every_worker_keeps_few_blocks(tmp_path):
    from rasterio.env import get_gdal_config
    write(tmp_path / 'a.tif', position_image(64, 64), **KINDS[0])
    ImageWindows(str(tmp_path), LOAD)
    assert get_gdal_config('GDAL_CACHEMAX') == 256


def test_few_files_stay_open(tmp_path, monkeypatch):
    """And the windows are the same."""
    for i in range(4):
        write(tmp_path / f'{i}.tif', position_image(64, 64) + np.uint8(i))

    def read():
        dataset = ImageWindows(str(tmp_path), LOAD)
        found = [
            dataset[SeededIndex(i % len(dataset), 3)]['img'] for i in range(8)
        ]
        return found, len(dataset._files)

    expected, number = read()
    assert number == 4
    monkeypatch.setattr('greenmim.datasets.image_windows.OPEN_FILES', 2)
    found, number = read()
    assert number == 2
    assert all(map(np.array_equal, expected, found))


class Stop(Hook):
    """Records losses, and dies in an iteration."""

    def __init__(self, losses, at=None):
        self.losses, self.at = losses, at

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        if runner.iter == self.at:
            raise KeyboardInterrupt
        self.losses.append((runner.iter, float(outputs['loss'])))


@pytest.mark.parametrize('start_method', ['fork', 'spawn'])
def test_training_resumes_within_an_epoch(tmp_path, start_method):
    """With the windows, and so the losses, of a run that did not stop."""
    (tmp_path / 'data').mkdir()
    write(tmp_path / 'data' / 'a.tif', position_image(200, 260), **KINDS[0])
    workers = int(start_method == 'spawn')
    pipeline = [*LOAD, dict(type='RandomFlip', prob=.5)]
    loader = dict(
        num_workers=workers,
        persistent_workers=bool(workers),
        multiprocessing_context='spawn' if workers else None,
        sampler=dict(type='greenmim.SeededSampler'),
        dataset=dict(
            type='greenmim.ImageWindows',
            data_root=str(tmp_path / 'data'),
            window_size=64,
            cell_size=64,
            pipeline=[*pipeline, dict(type='PackInputs')]))

    def run(name, at=None, **options):
        losses = []
        hooks = [dict(type='greenmim.SeedStepHook'), Stop(losses, at)]
        runner = micro_runner(
            tmp_path / name,
            loader,
            hooks,
            checkpoint=dict(by_epoch=False, interval=2),
            train_cfg=dict(type='greenmim.ResumableEpochLoop', max_epochs=2),
            **options)
        try:
            runner.train()
        except KeyboardInterrupt:
            pass
        return losses

    whole = run('whole')
    assert len(whole) == 10 and len({loss for _, loss in whole}) == 10
    before = run('stopped', at=7)
    after = run('stopped', resume=True)
    assert before == whole[:7] and after == whole[6:]
