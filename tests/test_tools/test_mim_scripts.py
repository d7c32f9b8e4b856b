# Copyright (c) greenmim authors. All rights reserved.
"""The commands that tools/benchmarks/mm*/*.sh start."""
import os
import subprocess

import pytest

from tests.conftest import CHECKOUT

SCRIPTS = CHECKOUT / 'tools' / 'benchmarks'
LIBRARIES = {'mmdetection': 'mmdet', 'mmsegmentation': 'mmsegmentation'}
BACKBONE = [
    '--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
    'model.backbone.init_cfg.checkpoint=a file',
    'model.backbone.init_cfg.prefix=backbone.'
]
REST = ['train_cfg.max_epochs=1', '--work-dir', 'a folder']
SLURM = ('--launcher slurm --gpus 16 --gpus-per-node 8 --cpus-per-task 5 '
         '--partition P --srun-args').split()
# script: (its arguments, the command after `mim train|test LIBRARY`)
COMMANDS = [
    ('mim_dist_train.sh', ['CONFIG', 'a file', '8'], 'train',
     ['--launcher', 'pytorch', '--gpus', '8', *BACKBONE]),
    ('mim_dist_train.sh', ['CONFIG', 'a file', '0'], 'train',
     ['--launcher', 'none', '--gpus', '0', *BACKBONE]),
    ('mim_dist_test.sh', ['CONFIG', 'a file', '8'], 'test',
     ['--checkpoint', 'a file', '--launcher', 'pytorch', '--gpus', '8']),
    ('mim_dist_test.sh', ['CONFIG', 'a file', '0'], 'test',
     ['--checkpoint', 'a file', '--launcher', 'none', '--gpus', '0']),
    ('mim_slurm_train.sh', ['P', 'CONFIG', 'a file'], 'train',
     [*SLURM, '--exclusive --time=1:00', *BACKBONE]),
]


@pytest.fixture
def run(tmp_path):
    """Run a script with a ``mim`` that only writes what it got."""
    program = tmp_path / 'mim'
    program.write_text('#!/usr/bin/env bash\n'
                       f'printf "%s\\n" "$@" > "{tmp_path}/command"\n'
                       f'echo "$PYTHONPATH" > "{tmp_path}/pythonpath"\n')
    program.chmod(0o755)

    def start(script, arguments):
        environment = dict(
            os.environ,
            PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
            PYTHONPATH='elsewhere',
            GPUS='16',
            GPUS_PER_NODE='8',
            SRUN_ARGS='--exclusive --time=1:00')
        return subprocess.run(['bash', script, *arguments],
                              env=environment,
                              cwd=tmp_path,
                              stderr=subprocess.PIPE,
                              text=True)

    return start


@pytest.mark.parametrize('folder', LIBRARIES)
@pytest.mark.parametrize('script, arguments, action, expected', COMMANDS)
def test_command(folder, script, arguments, action, expected, run, tmp_path):
    result = run(SCRIPTS / folder / script, [*arguments, *REST])
    assert result.returncode == 0, result.stderr
    command = (tmp_path / 'command').read_text().splitlines()
    assert command == [action, LIBRARIES[folder], 'CONFIG', *expected, *REST]
    paths = (tmp_path / 'pythonpath').read_text().strip()
    assert paths == f'{CHECKOUT}{os.pathsep}elsewhere'


@pytest.mark.parametrize('folder', LIBRARIES)
@pytest.mark.parametrize('script, arguments', [
    ('mim_dist_train.sh', 'CONFIG BACKBONE GPUS'),
    ('mim_dist_test.sh', 'CONFIG CHECKPOINT GPUS'),
    ('mim_slurm_train.sh', 'PARTITION CONFIG BACKBONE'),
])
def test_missing_argument(folder, script, arguments, run, tmp_path):
    result = run(SCRIPTS / folder / script, arguments.split()[:-1])
    assert result.returncode != 0
    last = arguments.split()[-1]
    assert (f'{last} is missing: {script} {arguments} [arguments]'
            in result.stderr)
    assert not (tmp_path / 'command').exists()
