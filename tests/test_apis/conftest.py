# Copyright (c) greenmim authors. All rights reserved.
"""A run that several tests look at."""
import pytest

import greenmim
from greenmim.command import main
from tests.micro import save_images

STEPS = 4


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Its own name and that of the images have what shells and MMEngine
    treat specially."""
    folder = tmp_path_factory.mktemp('a b') / 'Bäume, (中)'
    save_images(folder / 'my photos, (1)', 6, (150, 140))
    return folder


@pytest.fixture(scope='module')
def run(folder):
    """A run in words of the command, from another folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([
            'pretrain', 'my photos, (1)', '--backbone', 'swin-micro',
            '--steps', f'{STEPS}', '--batch-size', '3', '--out', 'a run',
            '--set', 'default_hooks.logger.interval=1',
            'optim_wrapper.optimizer.eps=1e-8'
        ]) == 0
    return greenmim.read_run(folder / 'a run')
