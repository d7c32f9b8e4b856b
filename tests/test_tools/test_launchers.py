# Copyright (c) greenmim authors. All rights reserved.
"""The documented command lines, run on the micro config.

Where a line needs several GPUs, the command that it would start is checked
instead. test_slurm.py runs those of Slurm on a real one.
"""
import os
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from greenmim.engine import launch
from tests.processes import free_port, losses_of, run

ROOT = Path(__file__).parents[2]
ITERATIONS_AN_EPOCH = 2


def installed_with_mim(package):
    """Whether ``mim train`` knows the package; a checkout is not enough."""
    try:
        return all(map(distribution, ('openmim', package)))
    except PackageNotFoundError:
        return False


# One after the other, each for two epochs, in one work folder.
LINES = [
    f'bash {ROOT}/tools/dist_train.sh {{config}} 2',
    f'bash {ROOT}/tools/slurm_train.sh PARTITION JOB {{config}}',
    f'python {ROOT}/tools/train.py {{config}}',
    'mim train mmpretrain {config}',
    'mim train mmselfsup {config}',
    'mim train greenmim {config} --launcher pytorch --gpus 2',
]


def make_program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
    (folder / name).chmod(0o755)


@pytest.fixture
def slurm(tmp_path, environment):
    """A cluster of one node, this one, that starts two tasks."""
    make_program(tmp_path / 'bin', 'scontrol', 'echo 127.0.0.1')
    make_program(
        tmp_path / 'bin', 'srun', """
        while [ "$1" != python ]; do shift; done
        export SLURM_NTASKS=2 SLURM_NODELIST=node
        SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & first=$!
        SLURM_PROCID=1 SLURM_LOCALID=1 "$@" && wait $first""")
    environment.update(
        PATH=f'{tmp_path / "bin"}{os.pathsep}{environment["PATH"]}',
        GPUS='2',
        GPUS_PER_NODE='2')


def test_losses_over_all_launchers(make_config, environment, slurm, tmp_path):
    """Every launcher resumes what another wrote; two processes equal one."""
    lines = [
        line for line in LINES
        if not line.startswith('mim') or installed_with_mim(line.split()[2])
    ]
    epochs = 2 * len(lines)
    config = make_config()
    reference = tmp_path / 'reference'
    run(
        f'python {ROOT}/tools/train.py {config} --work-dir {reference} '
        f'--cfg-options train_cfg.max_epochs={epochs}', environment, tmp_path)

    work_dir = tmp_path / 'work dir'
    for step, line in enumerate(lines, 1):
        command = f'{line} --work-dir {shlex.quote(str(work_dir))}'
        if step > 1:
            command += ' --resume'
        command += f' --cfg-options train_cfg.max_epochs={2 * step}'
        if line.endswith(' 2') or 'slurm' in line:
            command += ' train_dataloader.batch_size=2'
        environment['PORT'] = environment['MASTER_PORT'] = free_port()
        run(command.format(config=config.name), environment, config.parent)

        iterations = 2 * step * ITERATIONS_AN_EPOCH
        assert len(losses_of(work_dir)) == iterations, line
        checkpoint = torch.load(
            work_dir / f'epoch_{2 * step}.pth', weights_only=True)
        history = checkpoint['message_hub']['log_scalars']['train/loss']
        assert history.shape == (2, iterations), line

    np.testing.assert_allclose(
        losses_of(work_dir), losses_of(reference), rtol=1e-5)
    expected = torch.load(
        reference / f'epoch_{epochs}.pth', weights_only=True)['state_dict']
    for name, value in checkpoint['state_dict'].items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.fixture
def commands(tmp_path, environment):
    """Put programs on PATH that only write what they got."""
    folder = tmp_path / 'bin'
    for name in ('torchrun', 'srun', 'mim'):
        make_program(
            folder, name, f'printf "%s\\n" {name} "$@" > {folder}/command\n'
            f'echo "$PYTHONPATH" > {folder}/pythonpath')
    environment['PATH'] = f'{folder}{os.pathsep}{environment["PATH"]}'
    return folder


TORCHRUN = 'torchrun --standalone --nproc_per_node=8'
SRUN = ('srun -p P --job-name=JOB --gres=gpu:8 --ntasks=16 '
        '--ntasks-per-node=8 --cpus-per-task=5 --kill-on-bad-exit=1 '
        '--exclusive --time=1:00 python -u')
SLURM = ('--launcher slurm --gpus 16 --gpus-per-node 8 --cpus-per-task 5 '
         "--partition P --srun-args '--exclusive --time=1:00'")
BACKBONE = ("--cfg-options model.backbone.init_cfg.type=Pretrained "
            "'model.backbone.init_cfg.checkpoint=a file' "
            'model.backbone.init_cfg.prefix=backbone.')
REST = "train_cfg.max_epochs=1 --work-dir 'a folder'"
# A script and its arguments: the command that it starts.
COMMANDS = {
    'dist_train.sh CONFIG 8':
    f'{TORCHRUN} {ROOT}/tools/train.py CONFIG --launcher pytorch',
    "dist_test.sh CONFIG 'a file' 8":
    f"{TORCHRUN} {ROOT}/tools/test.py CONFIG 'a file' --launcher pytorch",
    'slurm_train.sh P JOB CONFIG':
    f'{SRUN} {ROOT}/tools/train.py CONFIG --launcher slurm',
    "slurm_test.sh P JOB CONFIG 'a file'":
    f"{SRUN} {ROOT}/tools/test.py CONFIG 'a file' --launcher slurm",
}
for folder, library in dict(
        mmdetection='mmdet', mmsegmentation='mmsegmentation').items():
    script = f'benchmarks/{folder}/mim'
    COMMANDS[f"{script}_slurm_train.sh P CONFIG 'a file'"] = (
        f'mim train {library} CONFIG {SLURM} {BACKBONE}')
    for gpus, launcher in (8, 'pytorch'), (0, 'none'):
        option = f'--launcher {launcher} --gpus {gpus}'
        COMMANDS[f"{script}_dist_train.sh CONFIG 'a file' {gpus}"] = (
            f'mim train {library} CONFIG {option} {BACKBONE}')
        COMMANDS[f"{script}_dist_test.sh CONFIG 'a file' {gpus}"] = (
            f"mim test {library} CONFIG --checkpoint 'a file' {option}")


@pytest.mark.parametrize('line', COMMANDS)
def test_command_of_script(line, commands, environment, tmp_path):
    environment.update(
        GPUS='16', GPUS_PER_NODE='8', SRUN_ARGS='--exclusive --time=1:00')
    run(f'bash {ROOT}/tools/{line} {REST}', environment, tmp_path)
    command = (commands / 'command').read_text().splitlines()
    assert command == shlex.split(f'{COMMANDS[line]} {REST}')
    paths = (commands / 'pythonpath').read_text().strip().split(os.pathsep)
    assert paths == [str(ROOT), *environment['PYTHONPATH'].split(os.pathsep)]


@pytest.mark.parametrize('script, complete', [
    ('dist_train.sh', 'CONFIG GPUS'),
    ('dist_test.sh', 'CONFIG CHECKPOINT GPUS'),
    ('slurm_train.sh', 'PARTITION JOB CONFIG'),
    ('slurm_test.sh', 'PARTITION JOB CONFIG CHECKPOINT'),
    *[(f'benchmarks/{folder}/mim_{script}.sh', complete)
      for folder in ('mmdetection', 'mmsegmentation')
      for script, complete in (('dist_train', 'CONFIG BACKBONE GPUS'),
                               ('dist_test', 'CONFIG CHECKPOINT GPUS'),
                               ('slurm_train', 'PARTITION CONFIG BACKBONE'))],
])
def test_missing_argument_of_script(script, complete, commands, environment):
    *arguments, last = complete.split()
    result = subprocess.run(['bash', ROOT / 'tools' / script, *arguments],
                            env=environment,
                            stderr=subprocess.PIPE,
                            text=True)
    assert result.returncode != 0
    usage = f'{Path(script).name} {complete} [arguments]'
    assert f'{last} is missing: {usage}' in result.stderr
    assert not (commands / 'command').exists()


@pytest.mark.parametrize('variables, port', [
    (dict(SLURM_JOB_ID='1234567'), '24567'),
    (dict(SLURM_JOB_ID='1234568'), '24568'),
    (dict(SLURM_JOB_ID='1234568', MASTER_PORT='29999'), '29999'),
])
def test_jobs_of_slurm_have_ports_of_their_own(variables, port, monkeypatch):
    monkeypatch.delenv('MASTER_PORT', raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = []
    monkeypatch.setattr(launch, '_use_gloo', lambda _: None)
    monkeypatch.setattr(launch.Runner, 'from_cfg',
                        lambda _: found.append(os.environ['MASTER_PORT']))
    launch.build_runner(Config(dict(launcher='slurm')))
    assert found == [port]
    os.environ.pop('MASTER_PORT')  # before it is put back


@pytest.fixture
def mim_train(monkeypatch):
    """The command that a line of ``mim train`` would start."""
    mim = pytest.importorskip('mim.commands.train')
    from click.testing import CliRunner

    def train(line):
        started = []
        with monkeypatch.context() as patch:
            patch.setattr(mim.subprocess, 'check_output', lambda *_: b'')
            patch.setattr(mim.subprocess, 'check_call',
                          lambda command, env: started.append(command) or 0)
            result = CliRunner().invoke(
                mim.cli, shlex.split(line), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return started[0]

    return train


@pytest.mark.parametrize('package', ['mmpretrain', 'mmselfsup', 'greenmim'])
def test_command_of_mim(package, make_config, mim_train):
    if not installed_with_mim(package):
        pytest.skip(f'{package} is not installed')
    config = str(make_config())
    script = Path(find_spec(package).origin).parent / '.mim/tools/train.py'

    assert mim_train(f'{package} {config} --work-dir D') == [
        sys.executable,
        str(script), config, '--launcher', 'none', '--work-dir', 'D'
    ]
    assert mim_train(
        f'{package} {config} --work-dir D --launcher pytorch --gpus 8 '
        '--port 29500') == [
            sys.executable, '-m', 'torch.distributed.launch',
            '--nproc_per_node=8', '--master_port=29500', str(script), config,
            '--launcher', 'pytorch', '--work-dir', 'D'
        ]  # yapf: disable
    assert mim_train(
        f'{package} {config} --work-dir D --launcher slurm --gpus 16 '
        '--gpus-per-node 8 --partition P') == [
            'srun', '-p', 'P', '--gres=gpu:8', '--ntasks=16',
            '--ntasks-per-node=8', '--cpus-per-task=2',
            '--kill-on-bad-exit=1', '--job-name=micro_config_train',
            sys.executable, '-u', str(script), config, '--launcher', 'slurm',
            '--work-dir', 'D'
        ]  # yapf: disable


def test_mim_finds_configs_by_name(mim_train, tmp_path, monkeypatch):
    if not installed_with_mim('greenmim'):
        pytest.skip('greenmim is not installed')
    monkeypatch.chdir(tmp_path)
    name = 'greenmim_swin-base_16xb128-amp-coslr-100e_in1k.py'
    config = mim_train(f'greenmim {name} --work-dir D')[2]
    assert Path(config).read_text() == (ROOT / 'configs' / name).read_text()
