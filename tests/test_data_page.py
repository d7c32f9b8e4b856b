# Copyright (c) greenmim authors. All rights reserved.
"""docs/data.md: its configs train, its commands run as they stand."""
import re
import runpy
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from tests.conftest import CHECKOUT
from tests.documents import Page, lines_of

PAGE = Page('docs/data.md')
CONFIGS = [
    re.fullmatch(r'# (\w+\.py)\n(.*)', block, re.S).groups()
    for block in PAGE.take('python')
]
COMMANDS = [line for block in PAGE.take('bash') for line in lines_of(block)]
SHORTER = [
    'train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2',
    'param_scheduler.0.end=1', 'param_scheduler.1.begin=1',
    'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False'
]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A checkout with images of two shapes, and arrays of 13 bands."""
    for name in 'configs', 'tools':
        (tmp_path / name).symlink_to(CHECKOUT / name)
    for folder in 'images', 'bands':
        (tmp_path / 'data' / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(4):
        size = [(160, 90), (100, 150)][i % 2]
        noise = rng.integers(0, 256, (*size, 13), dtype=np.uint8)
        np.save(tmp_path / 'data' / 'bands' / f'{i}.npy', noise)
        Image.fromarray(noise[..., :3]).save(tmp_path / 'data' / 'images' /
                                             f'{i}.png')
    for name, text in CONFIGS:
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command, monkeypatch):
    words = shlex.split(command)
    if words[0] != 'python':
        subprocess.run(words, check=True)
        return
    words = words[1:]
    if words[0].endswith('train.py'):
        if '--cfg-options' not in words:
            words.append('--cfg-options')
        words += [*SHORTER, f'experiment_name={uuid.uuid4().hex}']
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', words)
    runpy.run_path(words[0], run_name='__main__')


def test_every_command(workspace, monkeypatch, capfd):
    """From top to bottom; every run ends with a checkpoint."""
    assert len(CONFIGS) == 2 and len(COMMANDS) == 5
    for command in COMMANDS:
        capfd.readouterr()
        run(command, monkeypatch)
        if 'channel_statistics' in command:
            printed = capfd.readouterr().out
    runs = {path.parent.name for path in workspace.glob('work_dirs/*/*_2.pth')}
    assert runs == {'archive', 'mixed', 'bands'}

    assert re.match(r'# 4 of 4 images, decoded at \d+ images/s', printed)
    (workspace / 'printed.py').write_text(printed)
    cfg = Config.fromfile('printed.py')
    bands = np.concatenate([
        np.load(path).reshape(-1, 13) for path in Path('data/bands').iterdir()
    ])
    np.testing.assert_allclose(
        cfg.data_preprocessor.mean, bands.mean(0), atol=1e-3)
    np.testing.assert_allclose(
        cfg.data_preprocessor.std, bands.std(0), atol=1e-3)
    cfg.data_preprocessor.pop('_delete_')
    MODELS.build(cfg.data_preprocessor)
    documented = Config.fromfile('bands.py').model
    assert cfg.model.backbone.in_channels == documented.backbone.in_channels
    assert cfg.model.neck.out_channels == documented.neck.out_channels


@pytest.mark.parametrize('channels', [1, 3])
def test_statistics_of_images(workspace, monkeypatch, capsys, channels):
    """Of colours in the order that the data preprocessor wants them in."""
    for i, path in enumerate(Path('data/images').iterdir()):
        Image.new('RGB', (4, 4), (10 * i, 100, 200)).save(path)
    run(
        'python tools/misc/channel_statistics.py data/images --channels '
        f'{channels}', monkeypatch)
    Path('printed.py').write_text(capsys.readouterr().out)
    cfg = Config.fromfile('printed.py').data_preprocessor
    assert cfg.type == 'mmpretrain.SelfSupDataPreprocessor'
    assert cfg.to_rgb == (channels == 3)
    if channels == 3:
        np.testing.assert_allclose(cfg.mean, [15, 100, 200])
        np.testing.assert_allclose(cfg.std, [125**.5, 0, 0], atol=1e-3)
    else:
        assert len(cfg.mean) == 1
