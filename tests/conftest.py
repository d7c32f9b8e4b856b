# Copyright (c) greenmim authors. All rights reserved.
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

CHECKOUT = Path(__file__).resolve().parents[1]

# More threads only cost time on the small tensors of the tests.
torch.set_num_threads(1)


def skip_or_fail(reason: str) -> None:
    """Skip a test, or fail it where everything is expected to be there."""
    if os.environ.get('CI', '').lower() in ('1', 'true'):
        pytest.fail(f'{reason} (CI is set, so nothing may be skipped)')
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def default_scope() -> None:
    """The scope of the configs, whatever a runner of another test left."""
    init_default_scope('mmpretrain')


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        'markers', 'downstream: needs MMDetection, MMSegmentation and an mmcv '
        'with compiled operators; runs in the second environment of '
        'tools/run_tests.sh')


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
