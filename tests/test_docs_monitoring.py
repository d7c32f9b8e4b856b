# Copyright (c) greenmim authors. All rights reserved.
"""The page "Is it learning?", from top to bottom."""
import json
import re
import runpy
import shlex
import sys
import uuid
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from mmengine.visualization import Visualizer
from PIL import Image

from greenmim.visualization import MLflowBackend
from tests.conftest import CHECKOUT
from tests.documents import Page

PAGE = Page('docs/monitoring.md')
TEXT = PAGE.text
# The test goes through all blocks, and fails for what it does not know.
for language in 'bash', 'python':
    PAGE.take(language)
# What makes a run as short as a test has to be, on one process
SHORTER = [
    'train_cfg.max_iters=4', 'default_hooks.checkpoint.interval=4',
    'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False', 'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1'
]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A checkout with two folders of images."""
    for name in 'configs', 'tools':
        (tmp_path / name).symlink_to(CHECKOUT / name)
    rng = np.random.default_rng(0)
    for name in 'held_out', 'own':
        folder = tmp_path / 'data' / name
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (140, 140, 3), dtype='uint8')
            Image.fromarray(pixels).save(folder / f'{i}.png')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words, monkeypatch):
    """Run a command of Python in this process, shortened."""
    assert words[0] == 'python'
    words = words[1:]
    if words[0].endswith('train.py'):
        if '--cfg-options' not in words:
            words.append('--cfg-options')
        words += [*SHORTER, f'experiment_name={uuid.uuid4().hex}']
    elif words[0].endswith('forecast.py'):
        words += ['--steps', '1', '--warmup', '1', '--cfg-options', *SHORTER]
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.syspath_prepend(Path(words[0]).parent)
    monkeypatch.setattr(sys, 'argv', words)
    runpy.run_path(words[0], run_name='__main__')
    for file in Path('work_dirs').rglob('iter_4.pth'):
        file.rename(file.with_name('iter_600.pth'))


def measured(work_dir):
    (file, ) = Path(work_dir).rglob('scalars.json')
    lines = map(json.loads, file.read_text().splitlines())
    return [line for line in lines if 'learning/loss' in line]


def test_from_top_to_bottom(workspace, monkeypatch, capsys):
    # These would start services; test_logging_backends.py looks closer.
    for name in 'wandb', 'mlflow':
        monkeypatch.setitem(sys.modules, name, MagicMock())
    configs = iter(['pictures.py', 'logged.py'])
    for language, block in PAGE.blocks():
        if language == 'bash':
            for line in block.splitlines():
                run(shlex.split(line), monkeypatch)
        elif language == 'python':
            Path(next(configs)).write_text(block)

    for name in 'watched', 'held_out', 'pictures':
        assert [m['step'] for m in measured(f'work_dirs/{name}')] == [0, 4]
    # Other images, other figures; the same run otherwise
    first = [
        measured(f'work_dirs/{name}')[0]['learning/loss']
        for name in ('watched', 'held_out', 'pictures')
    ]
    assert first[0] == first[2] != first[1]
    assert list(Path('work_dirs/watched').glob('best_heldout_iter_*.pth'))
    log = next(Path('work_dirs/watched').rglob('*.log')).read_text()
    example = re.search(r'^Learning after .*$', TEXT, re.M).group()
    first, last = re.findall(r'Learning after .*', log)
    assert 'too early to tell (the first measurement)' in first
    # The verdict of four iterations may be another than the page's.
    ends = [
        re.sub(r'\d+(\.\d+)?', '#', line).split('Held-out')[1]
        for line in (example, last)
    ]
    assert ends[0] == ends[1]
    pictures = Path('work_dirs/pictures').rglob('reconstruction_*.png')
    assert sorted(p.stem[-1] for p in pictures) == ['0', '4']
    page = Path('work_dirs/watched/reconstructions.html').read_text()
    assert page.count('<img src="data:') == 30
    samples = Path('work_dirs/samples.html').read_text()
    assert samples.count('data/own/') == 3
    assert Path('work_dirs/groups.png').is_file()
    assert 'kg CO2e (60 W, as given)' in capsys.readouterr().out
    assert list(Path('work_dirs/tensorboard').rglob('events.out.tfevents*'))
    backend, = (
        backend for backend in
        Visualizer.get_current_instance()._vis_backends.values()
        if isinstance(backend, MLflowBackend))
    steps = [
        call.args[1] for call in backend.experiment.log_metrics.call_args_list
        if 'learning/loss' in call.args[0]
    ]
    assert steps == [0, 4]
