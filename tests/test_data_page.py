# Copyright (c) greenmim authors. All rights reserved.
"""docs/data.md: its configs train, its commands run as they stand."""
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from PIL import Image

from tests.documents import Page, lines_of, run_line, short_run
from tests.micro import save_images

PAGE = Page('docs/data.md')
CONFIGS = [
    re.fullmatch(r'# (\w+\.py)\n(.*)', block, re.S).groups()
    for block in PAGE.take('python')
]
COMMANDS = [line for block in PAGE.take('bash') for line in lines_of(block)]


def test_every_command(workspace, labelled, run_tool, capfd):
    """From top to bottom; every run ends with a checkpoint."""
    save_images(Path('data/images/tall'), 2, (160, 90))
    save_images(Path('data/images/wide'), 2, (100, 150))
    Path('data/labelled').symlink_to(labelled)
    Path('data/bands').mkdir()
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 256, (4, 140, 140, 13), dtype=np.uint8)
    for i, image in enumerate(bands):
        np.save(f'data/bands/{i}.npy', image)
    for name, text in CONFIGS:
        Path(name).write_text(text)
    assert len(CONFIGS) == 2 and len(COMMANDS) == 7
    for command in COMMANDS:
        capfd.readouterr()
        MMLogger._instance_dict.clear()  # as in a process of its own
        if not command.startswith('python'):
            subprocess.run(shlex.split(command), check=True)
            continue
        options = short_run(2, by_epoch='classification' in command)
        run_line(run_tool, command,
                 *(options if 'train.py' in command else []))
        if 'channel_statistics' in command:
            printed = capfd.readouterr().out
    runs = {path.parent.name for path in workspace.glob('work_dirs/*/*_2.pth')}
    assert runs == {'archive', 'mixed', 'bands', 'strict', 'labelled'}

    assert re.match(r'# 4 of 4 images, decoded at \d+ images/s', printed)
    Path('printed.py').write_text(printed)
    cfg = Config.fromfile('printed.py')
    pixels = bands.reshape(-1, 13)
    np.testing.assert_allclose(
        cfg.data_preprocessor.mean, pixels.mean(0), atol=1e-3)
    np.testing.assert_allclose(
        cfg.data_preprocessor.std, pixels.std(0), atol=1e-3)
    cfg.data_preprocessor.pop('_delete_')
    MODELS.build(cfg.data_preprocessor)
    documented = Config.fromfile('bands.py').model
    assert cfg.model.backbone.in_channels == documented.backbone.in_channels
    assert cfg.model.neck.out_channels == documented.neck.out_channels


@pytest.mark.parametrize('channels', [1, 3])
def test_statistics_of_images(workspace, run_tool, capsys, channels):
    """The colours are in the order of the data preprocessor."""
    Path('data/images').mkdir(parents=True)
    for i in range(4):
        Image.new('RGB', (4, 4),
                  (10 * i, 100, 200)).save(f'data/images/{i}.png')
    MMLogger._instance_dict.clear()  # as in a process of its own
    run_line(
        run_tool, 'python tools/misc/channel_statistics.py data/images '
        f'--channels {channels}')
    Path('printed.py').write_text(capsys.readouterr().out)
    cfg = Config.fromfile('printed.py').data_preprocessor
    assert cfg.type == 'greenmim.ChannelDataPreprocessor'
    assert cfg.to_rgb == (channels == 3)
    if channels == 3:
        np.testing.assert_allclose(cfg.mean, [15, 100, 200])
        np.testing.assert_allclose(cfg.std, [125**.5, 0, 0], atol=1e-3)
    else:
        assert len(cfg.mean) == 1
