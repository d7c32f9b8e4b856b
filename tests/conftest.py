# Copyright (c) greenmim authors. All rights reserved.
import os
import runpy
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Dict

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from skimage import data

from tests.micro import save_classes
from tests.processes import cpu_environment

CHECKOUT = Path(__file__).resolve().parents[1]
LAUNCH = CHECKOUT / 'tests' / 'data' / 'launch'
COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40),
           (40, 200, 200), (200, 200, 200)]

# More threads only cost time on the small tensors of the tests.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, whose numbers differ, from all but the tests for them."""
    folder = CHECKOUT / 'tests' / 'test_gpu'
    paths = [Path(arg.split('::')[0]).resolve() for arg in config.args]
    if not all(folder in (path, *path.parents) for path in paths):
        os.environ['CUDA_VISIBLE_DEVICES'] = ''


def skip_or_fail(reason: str) -> None:
    """Skip a test, or fail it where everything is expected to be there."""
    if os.environ.get('CI', '').lower() in ('1', 'true'):
        pytest.fail(f'{reason} (CI is set, so nothing may be skipped)')
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def default_scope() -> None:
    """The scope of the configs, whatever a runner of another test left."""
    init_default_scope('mmpretrain')


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker('downstream') is None:
        return
    # run_tests.sh sets the variable in the environment made for these tests.
    if os.environ.get('GREENMIM_DOWNSTREAM') == '1':
        return
    missing = [
        name for name in ('mmdet', 'mmseg', 'mmcv._ext')
        if find_spec(name) is None
    ]
    if missing:
        pytest.skip(f'{", ".join(missing)} not installed in this environment')


@pytest.fixture(scope='session')
def shared_folder() -> Path:
    """The folder with data that is too large for the repository.

    It holds ``data/`` (image archives) and ``fixtures/``. It is the value of
    ``GREENMIM_TEST_DATA``, or the folder ``shared`` beside the checkout.
    """
    folder = Path(
        os.environ.get('GREENMIM_TEST_DATA', CHECKOUT.parent / 'shared'))
    if not (folder / 'data').is_dir():
        skip_or_fail(f'the test data folder {folder} has no data/; set '
                     'GREENMIM_TEST_DATA to where it is')
    return folder


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


@pytest.fixture(scope='session')
def labelled(tmp_path_factory) -> Path:
    """``train`` and ``val`` of six colours, four and two noisy images each."""
    root = tmp_path_factory.mktemp('labelled')
    for seed, (part, count) in enumerate((('train', 4), ('val', 2))):
        save_classes(root / part, COLOURS, count, seed)
    return root


def link_checkout(folder: Path) -> Path:
    """Make a folder look like the checkout to the documented commands."""
    for name in 'configs', 'tools':
        (folder / name).symlink_to(CHECKOUT / name)
    return folder


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """The current folder, with the configs and tools of the checkout."""
    monkeypatch.chdir(link_checkout(tmp_path))
    return tmp_path


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
    return cpu_environment(LAUNCH)


@pytest.fixture
def run_tool(tmp_path, monkeypatch) -> Callable[..., dict]:
    """Run a Python script in this process, from a folder of its own."""

    def run(script: Path, *arguments) -> dict:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv('LOCAL_RANK', '0')
        monkeypatch.syspath_prepend(Path(script).parent)  # as Python does
        argv = [str(script), *map(str, arguments)]
        monkeypatch.setattr(sys, 'argv', argv)
        return runpy.run_path(str(script), run_name='__main__')

    return run
