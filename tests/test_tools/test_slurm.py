# Copyright (c) greenmim authors. All rights reserved.
"""The Slurm commands of the documents, on a real Slurm of one node."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from tests.conftest import CHECKOUT, skip_or_fail
from tests.processes import processes_with, run

LAUNCH = CHECKOUT / 'tests' / 'data' / 'launch'
CLUSTER = CHECKOUT / 'tests' / 'slurm' / 'cluster.sh'
PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'srun', 'sbatch', 'scontrol')
ITERATIONS = 16  # 8 epochs of 2, on 2 processes


def documented(start, config, work_dir):
    """The line of the page that starts like this, for the small cluster."""
    text = (CHECKOUT / 'docs' / 'clusters.md').read_text('utf-8')
    line, = (line for line in text.splitlines() if line.startswith(start))
    for name, value in {
            'PARTITION': 'P',
            'CONFIG': str(config),
            '--work-dir D': f'--work-dir {work_dir}',
            'GPUS=16 GPUS_PER_NODE=8 ': '',
            '--gpus 16 --gpus-per-node 8': '--gpus 2 --gpus-per-node 2',
            '--nodes=2': '--nodes=1',
    }.items():
        line = line.replace(name, value)
    return line


def call(line, environment):
    return run(line, environment, CHECKOUT, timeout=300)


@pytest.fixture(scope='module')
def environment():
    """The environment variables of a user of the cluster."""
    path = f'{os.environ["PATH"]}{os.pathsep}/usr/sbin'
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        skip_or_fail(f'no {", ".join(missing)}; on Debian: apt-get install '
                     '--no-install-recommends slurm-wlm munge')
    if os.geteuid() != 0:
        skip_or_fail('a Slurm of its own needs the superuser')
    # pytest's own folders are closed to all but the user.
    folder = Path(tempfile.mkdtemp(prefix='slurm'))
    folder.chmod(0o755)
    variables = {
        name: value
        for name, value in os.environ.items() if not name.startswith('SLURM_')
    }
    variables.update(
        SLURM_CONF=str(folder / 'slurm.conf'),
        CUDA_VISIBLE_DEVICES='',
        OMP_NUM_THREADS='1',
        PATH=f'{Path(sys.executable).parent}{os.pathsep}{path}',
        PYTHONPATH=f'{CHECKOUT}{os.pathsep}{LAUNCH}',
        GPUS='2',
        GPUS_PER_NODE='2',
        CPUS_PER_TASK='1')
    try:
        # Daemons keep what they inherit: with a pipe the call would wait.
        subprocess.run(['bash', str(CLUSTER), 'start',
                        str(folder)],
                       env=variables,
                       check=True,
                       timeout=300)
        yield variables
    finally:
        subprocess.run(['bash', str(CLUSTER), 'stop',
                        str(folder)],
                       env=variables,
                       check=True,
                       timeout=300)
        left = processes_with(f'SLURM_CONF={folder / "slurm.conf"}')
        shutil.rmtree(folder)
        assert not left


@pytest.fixture(scope='module')
def config(tmp_path_factory, images):
    """The micro config with everything that a resumed run needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LAUNCH)
        cfg = Config.fromfile(LAUNCH / 'micro_config.py')
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=1, persistent_workers=True)
    loader.sampler = dict(type='greenmim.SeededSampler', shuffle=True)
    loader.dataset.data_root = str(images)
    loader.dataset.pipeline = [
        dict(type='greenmim.LoadImage'),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs')
    ]
    cfg.model.backbone.drop_path_rate = 0.3
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=1e-3)
    cfg.param_scheduler = dict(type='LinearLR', by_epoch=False, end=ITERATIONS)
    cfg.train_cfg = dict(
        type='greenmim.ResumableEpochLoop', max_epochs=ITERATIONS // 2)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=4)
    cfg.custom_hooks = [
        dict(type='greenmim.PlanAheadHook'),
        dict(type='greenmim.SeedStepHook'),
        dict(type='greenmim.PreemptionHook'),
        dict(type='greenmim.RecordLosses'),
        dict(type='greenmim.Hold')
    ]
    path = tmp_path_factory.mktemp('slurm') / 'micro_config.py'
    cfg.dump(path)
    return path


def losses(work_dir):
    """Of each process: lines of iteration and loss, as they were written."""
    found = []
    for rank in range(2):
        file = work_dir / f'losses_{rank}.txt'
        found.append(file.read_text().splitlines() if file.exists() else [])
    return found


def wait_until(condition, seconds, complaint=str):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, complaint()
        time.sleep(0.2)


def wait_for_iteration(work_dir, iteration, log):
    """Wait until both processes are held at an iteration."""

    def reached():
        return all(
            lines and int(lines[-1].split()[0]) == iteration - 1
            for lines in losses(work_dir))

    wait_until(reached, 300, lambda: log.read_text()[-5000:])


@pytest.fixture(scope='module')
def whole(environment, config):
    """The work folder of a run that nothing interrupts."""
    work_dir = config.parent / 'whole'
    log = call(
        documented('GPUS=16 GPUS_PER_NODE=8 bash tools/slurm_train.sh', config,
                   work_dir), environment)
    assert '--ntasks=2' in log
    return work_dir


def test_two_tasks_train(whole):
    """Each on images of its own, in one work folder with one log."""
    first, second = losses(whole)
    numbers = [[int(line.split()[0]) for line in lines]
               for lines in (first, second)]
    assert numbers == [list(range(ITERATIONS))] * 2
    assert not set(first) & set(second)
    assert len(list(whole.glob('*/*.log'))) == 1
    checkpoint = torch.load(whole / f'iter_{ITERATIONS}.pth')
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert history.shape == (2, ITERATIONS)


def test_a_batch_job_is_requeued_and_resumes(environment, config, whole):
    """First its time runs out, then a job of higher priority replaces it."""
    work_dir = config.parent / 'requeued'
    work_dir.mkdir()
    log = work_dir / 'slurm.out'
    for iteration in (5, 11):
        (work_dir / f'hold_{iteration}').touch()
    line = documented('sbatch', config, work_dir)
    options = (
        'sbatch --parsable --ntasks-per-node=2 --gres=gpu:2 --cpus-per-task=1 '
        f'--output={log}')
    job = call(line.replace('sbatch', options, 1), environment).strip()

    def show():
        return call(f'scontrol show job {job}', environment)

    def update(setting):
        call(f'scontrol update JobId={job} {setting}', environment)

    def start_again(restarts):
        """Start the job at once; Slurm would let it wait for two minutes."""
        waiting = f'Restarts={restarts}', 'Reason=BeginTime'
        wait_until(lambda: all(text in show() for text in waiting), 300, show)
        # What belongs to the attempt before is refused by the second.
        time.sleep(2)
        update('TimeLimit=60 StartTime=now')

    # Two minutes before the end SIGUSR1 comes, which the script asks for.
    wait_for_iteration(work_dir, 5, log)
    assert not (work_dir / 'iter_5.pth').exists()
    update('TimeLimit=2')
    start_again(restarts=1)
    assert (work_dir / 'iter_5.pth').exists()

    wait_for_iteration(work_dir, 11, log)
    assert not (work_dir / 'iter_11.pth').exists()
    call('srun --partition=urgent --ntasks=2 --gres=gpu:2 true', environment)
    start_again(restarts=2)
    assert (work_dir / 'iter_11.pth').exists()

    wait_until(lambda: 'JobState=COMPLETED' in show(), 300, show)
    text = log.read_text()
    assert text.count('Got SIGUSR1: saved iter_5.pth') == 1, text
    assert text.count('Got SIGTERM: saved iter_11.pth') == 1, text
    assert losses(work_dir) == losses(whole)


def test_a_lost_task_ends_the_job(environment, config, whole):
    """The other task ends with a message; mim's own command continues."""
    work_dir = config.parent / 'lost'
    work_dir.mkdir()
    log = work_dir / 'slurm.out'
    (work_dir / 'hold_6').touch()
    with log.open('w') as stream:
        process = subprocess.Popen([
            'bash', 'tools/slurm_train.sh', 'P', 'greenmim',
            str(config), '--work-dir',
            str(work_dir)
        ],
                                   env=environment,
                                   cwd=CHECKOUT,
                                   stdout=stream,
                                   stderr=subprocess.STDOUT)
        wait_for_iteration(work_dir, 6, log)
        conf = f'SLURM_CONF={environment["SLURM_CONF"]}'
        # The task, not its data-loading worker, which it started
        task = min(
            set(processes_with(conf)).intersection(
                processes_with('SLURM_PROCID=1')))
        os.kill(task, signal.SIGKILL)
        begin = time.time()
        assert process.wait(timeout=60) != 0
    assert time.time() - begin < 30
    text = log.read_text()
    assert re.search(r'error: localhost: task 1: Killed', text), text
    wait_until(lambda: not processes_with('SLURM_PROCID=0'), 10)

    (work_dir / 'hold_6').unlink()
    line = documented('mim train greenmim CONFIG --launcher slurm', config,
                      work_dir)
    output = call(f'{line} --resume', environment)
    assert 'Training finished successfully' in output
    # What was done since the last checkpoint was done again, to the last bit.
    for found, expected in zip(losses(work_dir), losses(whole)):
        assert found == expected[:6] + expected[4:]
