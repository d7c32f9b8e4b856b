# Copyright (c) greenmim authors. All rights reserved.
"""A run that several tests look at."""
import pytest

import greenmim
from greenmim.command import main
from tests.micro import save_images

STEPS = 4
# What shells, MMEngine or Python read as more than a name.
NAME = """a b, it's "(ü 中)", [x]=1 %d {y} #!"""
PHOTOS, RUN = f'photos {NAME}', f'run {NAME}'


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('a b') / 'Bäume, (中)'
    save_images(folder / PHOTOS, 6, (150, 140))
    # What a name that is cut at a blank would find instead.
    (folder / 'photos').mkdir()
    (folder / 'run').mkdir()
    return folder


@pytest.fixture(scope='session')
def run(folder):
    """A run in words of the command, from another folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([
            'pretrain', PHOTOS, '--backbone', 'swin-micro', '--steps',
            f'{STEPS}', '--batch-size', '3', '--out', RUN, '--set',
            'default_hooks.logger.interval=1',
            'optim_wrapper.optimizer.eps=1e-8'
        ]) == 0
    return greenmim.read_run(folder / RUN)
