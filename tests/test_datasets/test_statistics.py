# Copyright (c) greenmim authors. All rights reserved.
"""The range that is proposed, and training with the printed lines."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmpretrain.registry import MODELS
from PIL import Image

from greenmim.command import main
from greenmim.datasets import ImageFolder
from greenmim.datasets.statistics import measure
from tests.test_datasets.test_dicom import dicom

ROOT = Path(__file__).resolve().parents[2]


def smooth_images(number, channels, size=96, seed=0):
    """Random fields whose neighbours are alike, of mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    images = []
    for _ in range(number):
        waves = 0
        for _ in range(6):
            fy, fx, phase = rng.uniform(-9, 9, 3)
            weight = rng.normal() + .3 * rng.normal(size=channels)
            waves = waves + np.sin(fy * y + fx * x + phase)[..., None] * weight
        images.append((waves - waves.mean()) / waves.std())
    return images


def save(folder, arrays, suffix='.npy'):
    folder.mkdir(exist_ok=True)
    for i, array in enumerate(arrays):
        if suffix == '.npy':
            np.save(folder / f'{i:03}.npy', array)
        else:
            Image.fromarray(array).save(folder / f'{i:03}{suffix}')


def measured(folder, channels, suffix='.npy', **options):
    return measure(
        lambda pipeline: ImageFolder(
            str(folder), pipeline, extensions=(suffix, )), channels, options)


MADE = dict(
    ct=(1, lambda x: (x * 400 - 200).clip(-1000, 2000).astype(np.int16)),
    thermal=(1, lambda x: (29700 + 300 * x).astype(np.uint16)),
    bands=(13, lambda x: np.where(x > -2.5, .3 + .1 * x, -9999).astype(
        np.float32) * np.float32(1000)))


@pytest.mark.parametrize('kind', MADE)
def test_training_with_the_printed_lines(kind, tmp_path):
    """At least 200 levels are used, and the held-out loss falls."""
    channels, convert = MADE[kind]
    images = [convert(image) for image in smooth_images(40, channels)]
    save(tmp_path / 'train', images[:32])
    save(tmp_path / 'held_out', images[32:])
    command = [
        sys.executable, 'tools/misc/channel_statistics.py',
        str(tmp_path / 'train'), '--channels',
        str(channels), '--extensions', '.npy'
    ]
    if kind == 'bands':
        command += ['--nodata', '-9999000']
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'warning' not in run.stdout
    (tmp_path / 'printed.py').write_text(run.stdout)
    cfg = Config.fromfile(str(tmp_path / 'printed.py'))
    cfg.data_preprocessor.pop('_delete_')
    pipeline = [
        cfg.load_image,
        dict(type='mmpretrain.RandomResizedCrop', scale=64),
        dict(type='mmpretrain.PackInputs')
    ]
    train, held_out = (
        ImageFolder(str(tmp_path / name), pipeline, extensions=('.npy', ))
        for name in ('train', 'held_out'))
    pixels = np.stack([train[i]['inputs'].numpy() for i in range(32)])
    for channel in range(channels):
        assert len(np.unique(pixels[:, channel])) >= 200

    torch.manual_seed(0)
    np.random.seed(0)
    model = MODELS.build(
        dict(
            type='greenmim.GreenMIM',
            backbone=dict(
                type='greenmim.GreenMIMSwinTransformer',
                arch=dict(embed_dims=16, depths=[1, 1], num_heads=[2, 2]),
                img_size=64,
                patch_size=4,
                window_size=4,
                out_indices=(1, ),
                in_channels=cfg.model.backbone.in_channels),
            neck=dict(
                type='greenmim.GreenMIMNeck',
                in_channels=32,
                embed_dims=32,
                num_heads=2,
                out_channels=8 * 8 * channels),
            head=dict(
                type='greenmim.GreenMIMHead', norm_pix=False, unit_size=8),
            data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    assert cfg.model.neck.out_channels == 32 * 32 * channels
    held = default_collate([held_out[i] for i in range(8)])

    def loss_of(batch):
        data = model.data_preprocessor(batch, training=True)
        return model(**data, mode='loss')['loss']

    def held_out_loss():
        torch.manual_seed(1)
        with torch.no_grad():
            return float(loss_of(held))

    before = held_out_loss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(40):
        chosen = np.random.default_rng(step).permutation(32)[:16]
        loss = loss_of(default_collate([train[int(i)] for i in chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert held_out_loss() < .9 * before


def test_no_range_where_none_is_needed(tmp_path):
    images = smooth_images(4, 3)
    colours = [(100 + 40 * x).clip(0, 255).astype(np.uint8) for x in images]
    save(tmp_path / 'png', colours, '.png')
    found = measured(tmp_path / 'png', 3, '.png')
    assert found.options == {} and found.kinds == ['uint8']
    np.testing.assert_allclose(
        found.mean, np.mean(colours, (0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(
        found.std, np.std(colours, (0, 1, 2)), atol=1e-6)
    save(tmp_path / 'wide', [x.astype(np.uint16) * 257 for x in colours])
    assert measured(tmp_path / 'wide', 3).options == {}
    save(tmp_path / 'flat', [np.full((8, 8), 1000, np.uint16)])
    found = measured(tmp_path / 'flat', 1)
    assert found.options == {}
    assert 'bands 1 are constant' in found.warnings[0]


def test_colours_share_a_range_and_bands_do_not(tmp_path):
    images = [(2000 + 300 * x).astype(np.uint16) for x in smooth_images(4, 3)]
    save(tmp_path / 'colour', images)
    options = measured(tmp_path / 'colour', 3).options
    low, high = np.percentile(images, [.1, 99.9])
    assert abs(options['black_level'] - low) <= 40
    assert abs(options['white_level'] - high) <= 40
    scaled = [x * np.arange(1, 6) for x in smooth_images(4, 5)]
    save(tmp_path / 'bands', scaled)
    options = measured(tmp_path / 'bands', 5).options
    width = np.subtract(options['white_level'], options['black_level'])
    assert width.shape == (5, ) and width[4] > 3 * width[0]


def test_a_given_range_is_judged(tmp_path):
    images = [(1000 * x).astype(np.int32) for x in smooth_images(4, 1)]
    save(tmp_path / 'a', images)
    narrow = measured(tmp_path / 'a', 1, black_level=-500, white_level=500)
    outside = np.mean(np.abs(images) > 500)
    assert abs(narrow.bands[0].clipped - outside) < .02
    assert any('clipped' in text for text in narrow.warnings)
    wide = measured(tmp_path / 'a', 1, black_level=-1e6, white_level=1e6)
    assert any('few of the 256 levels' in text for text in wide.warnings)
    assert not measured(tmp_path / 'a', 1).warnings


def test_values_that_are_one_or_none(tmp_path):
    """A range can still be trained with."""
    save(tmp_path / 'one', [np.full((8, 8), -7.5, np.float32)] * 2)
    found = measured(tmp_path / 'one', 1)
    assert found.options == dict(black_level=-7.5, white_level=-6.5)
    assert any('constant' in text for text in found.warnings)
    bands = [np.stack([x[..., 0], x[..., 0] * 0 - 1], -1)
             for x in smooth_images(2, 1)]  # yapf: disable
    save(tmp_path / 'none', bands)
    found = measured(tmp_path / 'none', 2, nodata=-1.)
    assert found.options['black_level'][1] == 0
    assert found.options['white_level'][1] == 1
    assert found.bands[1].nodata == 1
    assert any('bands 2 are without data' in text for text in found.warnings)


def test_options_of_the_command(tmp_path, capsys):
    """What is given is in the printed lines, and nothing is proposed."""
    images = [1000 * image for image in smooth_images(2, 4)]
    save(tmp_path, images)
    main([
        'statistics',
        str(tmp_path), '--extensions', '.npy', '--channels', '3', '--bands',
        '4', '2', '1', '--black-level', '-3000', '--white-level', '3000',
        '2000', '1000', '--nodata', '-9999', '--dtype', 'float32'
    ])
    printed = capsys.readouterr().out
    scope = {}
    exec(printed, scope)
    assert scope['load_image'] == dict(
        type='greenmim.LoadImage', channels=3, bands=(4, 2, 1),
        black_level=-3000., white_level=[3000., 2000., 1000.],
        nodata=-9999., dtype='float32')  # yapf: disable
    values = np.concatenate([image.reshape(-1, 4) for image in images])
    white = np.array([3000, 2000, 1000])
    levels = (values[:, [3, 1, 0]] + 3000) / (white + 3000) * 255
    np.testing.assert_allclose(
        scope['data_preprocessor']['mean'],
        levels.clip(0, 255).mean(0),
        atol=.01)


def test_files_that_differ(tmp_path):
    """In their number type, the number of bands, and one is damaged."""
    images = [(100 + 40 * x).clip(0, 255) for x in smooth_images(2, 3)]
    colour, grey = images[0].astype(np.uint8), images[1][..., 0]
    save(tmp_path, [colour, grey])
    (tmp_path / '002.npy').write_bytes(b'no array')
    found = measured(tmp_path, 3, black_level=0, white_level=255)
    assert found.kinds == ['float64', 'uint8'] and found.of == 3
    # The damaged one is replaced by one of the two.
    values = [band.percentiles[1] for band in found.bands]
    middle = np.median(colour[..., 1:], (0, 1))
    np.testing.assert_allclose(values[1:], middle, atol=3)
    assert any('hold float64, uint8, which share' in text
               for text in found.warnings)


def test_the_window_of_the_files(tmp_path):
    """It is the range, if it shows the values."""
    pytest.importorskip('pydicom')
    tmp_path.mkdir(exist_ok=True)
    for i, image in enumerate(smooth_images(2, 1)):
        values = (400 * image[..., 0]).astype(np.int16)
        (tmp_path / f'{i}.dcm').write_bytes(
            dicom(values, WindowCenter=0, WindowWidth=1600))
    found = measured(tmp_path, 1, '.dcm')
    assert found.options == {} and found.bands[0].levels > 100
    outside = [abs(400 * image) > 800 for image in smooth_images(2, 1)]
    assert abs(found.bands[0].clipped - np.mean(outside)) < .02


def test_no_data_counts_nowhere_and_is_guessed(tmp_path):
    images = [(.5 + .1 * x).astype(np.float32) for x in smooth_images(4, 1)]
    for image in images:
        image[:20] = -9999
    save(tmp_path / 'a', images)
    found = measured(tmp_path / 'a', 1)
    assert any('nodata=-9999' in text for text in found.warnings)
    found = measured(tmp_path / 'a', 1, nodata=-9999)
    assert not found.warnings
    assert abs(found.bands[0].nodata - 20 / 96) < .02
    assert found.options.get('black_level', 0) > -1
