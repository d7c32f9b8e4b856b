# Copyright (c) greenmim authors. All rights reserved.
import os
import runpy
import socket
import sys
import uuid
from pathlib import Path
from typing import Callable, Dict

import pytest
from mmengine.config import Config
from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / 'tests' / 'data' / 'launch'


@pytest.fixture(scope='session')
def images(tmp_path_factory) -> Path:
    """A folder, and one in it, with eight crops of a photograph."""
    folder = tmp_path_factory.mktemp('images')
    (folder / 'deeper').mkdir()
    photograph = Image.fromarray(data.astronaut())
    for i in range(8):
        crop = photograph.crop((40 * i, 40 * i, 40 * i + 64, 40 * i + 64))
        crop.save(folder / ('deeper' if i % 2 else '') / f'{i}.png')
    return folder


@pytest.fixture
def make_config(images, tmp_path, monkeypatch) -> Callable[..., Path]:
    """Write the micro config with some options changed."""
    monkeypatch.syspath_prepend(LAUNCH)

    def make(options: dict = dict(), base: Path = LAUNCH / 'micro_config.py'):
        cfg = Config.fromfile(base)
        cfg.merge_from_dict({
            'train_dataloader.dataset.data_root': str(images),
            # Runs of one process that share a name share their history.
            'experiment_name': uuid.uuid4().hex,
            **options
        })
        path = tmp_path / f'{base.stem}.py'
        cfg.dump(path)
        return path

    return make


@pytest.fixture
def environment() -> Dict[str, str]:
    """For a process without a GPU that finds greenmim and the micro config."""
    binaries = Path(sys.executable).parent
    return dict(
        os.environ,
        CUDA_VISIBLE_DEVICES='',
        OMP_NUM_THREADS='1',
        PATH=f'{binaries}{os.pathsep}{os.environ["PATH"]}',
        PYTHONPATH=f'{ROOT}{os.pathsep}{LAUNCH}')


@pytest.fixture
def free_port() -> Callable[[], str]:
    """Name a port that nothing listens on."""

    def name() -> str:
        with socket.socket() as listener:
            listener.bind(('127.0.0.1', 0))
            return str(listener.getsockname()[1])

    return name


@pytest.fixture
def run_tool(tmp_path, monkeypatch) -> Callable[..., dict]:
    """Run a Python script in this process, from a folder of its own."""

    def run(script: Path, *arguments) -> dict:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv('LOCAL_RANK', '0')
        argv = [str(script), *map(str, arguments)]
        monkeypatch.setattr(sys, 'argv', argv)
        return runpy.run_path(str(script), run_name='__main__')

    return run
