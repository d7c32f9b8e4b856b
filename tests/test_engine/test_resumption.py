# Copyright (c) greenmim authors. All rights reserved.
"""Real runs that are killed, and continue as if they had not been."""
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from greenmim.engine.checkpoints.latest import find_latest_whole_checkpoint
from greenmim.engine.loops import load_batches
from tests.conftest import CHECKOUT, LAUNCH, skip_or_fail
from tests.micro import scalars_of
from tests.processes import cpu_environment, processes_with

ITERATIONS = 24  # 4 epochs of 6

CONFIG = f'''
_base_ = '{LAUNCH}/micro_config.py'
custom_imports = dict(imports=['write_losses'])
model = dict(
    mask_ratio=0.5, mask_scope='image', backbone=dict(drop_path_rate=0.3))
train_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='greenmim.SeededSampler'),
    dataset=dict(
        _delete_=True,
        type='greenmim.SamplePhotographs',
        num_views=24,
        pipeline=[
            dict(type='RandomResizedCrop', scale=64),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs')
        ]))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, begin=0, end=8),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=8, T_max=16)
]
train_cfg = dict(
    _delete_=True, type='greenmim.ResumableEpochLoop', max_epochs=4)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=3))
custom_hooks = [
    dict(type='greenmim.PlanAheadHook'),
    dict(type='greenmim.SeedStepHook'),
    dict(type='greenmim.PreemptionHook'),
    dict(type='greenmim.WriteLosses')
]
randomness = dict(_delete_=True, seed=3)
'''

WRITE_LOSSES = '''
import os
import time
from mmengine.hooks import Hook
from greenmim.registry import HOOKS


@HOOKS.register_module()
class WriteLosses(Hook):
    """The exact loss of every iteration, at once on the disk."""

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        name = os.path.join(runner.work_dir, 'losses.txt')
        with open(name, 'a') as file:
            file.write(f'{runner.iter} {batch_idx} '
                       f'{float(outputs["loss"]).hex()}\\n')
        time.sleep(float(os.environ.get('PAUSE', 0)))
'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('resumption')
    (path / 'config.py').write_text(CONFIG)
    (path / 'write_losses.py').write_text(WRITE_LOSSES)
    return path


def start(folder: Path, name: str, pause: float = 0) -> subprocess.Popen:
    return subprocess.Popen([
        sys.executable, '-W', 'ignore', CHECKOUT / 'tools' / 'train.py',
        folder / 'config.py', '--work-dir', folder / name, '--resume'
    ],
                            env=cpu_environment(folder, PAUSE=str(pause)),
                            stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT,
                            text=True)


def losses(folder: Path, name: str) -> list:
    """(iteration, batch of the epoch, loss) of all iterations, in order."""
    file = folder / name / 'losses.txt'
    if not file.exists():
        return []
    rows = [line.split() for line in file.read_text().splitlines()]
    return [(int(row[0]), int(row[1]), row[2]) for row in rows
            if len(row) == 3]


@pytest.fixture(scope='module')
def expected(folder):
    """The losses of a run that nothing interrupts."""
    process = start(folder, 'whole')
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 0, log[-2000:]
    rows = losses(folder, 'whole')
    assert [row[:2] for row in rows] == [(i, i % 6) for i in range(ITERATIONS)]
    assert len({row[2] for row in rows}) == ITERATIONS
    return rows


def kill_after(process, folder, name, num_losses, number):
    """Send a signal after the given number of further losses."""
    goal = len(losses(folder, name)) + num_losses
    while len(losses(folder, name)) < goal:
        assert process.poll() is None, process.communicate()[0][-2000:]
        time.sleep(0.01)
    process.send_signal(number)
    log = process.communicate(timeout=60)[0]
    return log


def test_killed_five_times(folder, expected):
    """kill -9 costs the work since the last checkpoint, and not a bit more.
    """
    generator = random.Random(0)
    for _ in range(5):
        process = start(folder, 'killed', pause=0.03)
        kill_after(process, folder, 'killed', generator.randint(2, 5),
                   signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    process = start(folder, 'killed')
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 0, log[-2000:]
    rows = losses(folder, 'killed')
    assert len(rows) > ITERATIONS  # some were computed twice
    assert set(rows) == set(expected)
    assert 'Continuing epoch' in log or rows[-1] == expected[-1]


@pytest.mark.parametrize('number', [
    signal.SIGTERM,
    pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, marks=pytest.mark.slow),
])
def test_a_signal_saves_at_once(folder, expected, number):
    """Nothing is computed twice; then the newest checkpoint is damaged."""
    name = f'preempted{int(number)}'
    process = start(folder, name, pause=0.03)
    log = kill_after(process, folder, name, 5, number)
    assert process.returncode == 75, log[-2000:]
    assert number.name in log
    done = len(losses(folder, name))
    newest = folder / name / f'iter_{done}.pth'
    assert newest.exists()

    if number == signal.SIGUSR1:  # a copy that was cut off
        newest.write_bytes(newest.read_bytes()[:-1000])
    process = start(folder, name)
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 0, log[-2000:]
    rows = losses(folder, name)
    if number == signal.SIGUSR1:
        assert f'{newest} is damaged' in log
        assert len(rows) > ITERATIONS
        assert set(rows) == set(expected)
    else:
        assert rows == expected


def test_logged_losses_continue_smoothly(folder, expected):
    """The resumed log is that of the whole run, to the last digit."""

    def scalars(name):
        return {
            row['step']: (row['loss'], row['lr'])
            for row in scalars_of(folder / name)
        }

    assert scalars(f'preempted{int(signal.SIGTERM)}') == scalars('whole')


@pytest.fixture
def small_disk(folder, expected):
    """A file system in memory with room for two checkpoints and a half."""
    if sys.platform != 'linux' or os.geteuid() != 0:
        skip_or_fail('only the superuser of Linux may mount a disk')
    path = folder / 'small'
    path.mkdir()
    checkpoint = folder / 'whole' / f'iter_{ITERATIONS}.pth'
    size = int(2.5 * checkpoint.stat().st_size)
    mount = ['mount', '-t', 'tmpfs', 'tmpfs', str(path), '-o']
    subprocess.run([*mount, f'size={size}'], check=True)

    def enlarge():
        subprocess.run([*mount, f'remount,size={10 * size}'], check=True)

    yield enlarge
    subprocess.run(['umount', str(path)], check=True)


def test_a_full_disk(folder, expected, small_disk):
    """The run stops at the third checkpoint; two are whole."""
    process = start(folder, 'small')
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 1, log[-2000:]
    last = folder / 'small' / 'iter_4.pth'
    assert f'No space left on device: cannot write {last.parent}/iter_6' in log
    assert 'free some space and resume' in log
    assert find_latest_whole_checkpoint(str(last.parent)) == str(last)
    assert not list(last.parent.glob('.*.part'))

    small_disk()
    process = start(folder, 'small')
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 0, log[-2000:]
    rows = losses(folder, 'small')
    assert rows == expected[:6] + expected[4:]


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_data_loading_worker_dies(folder, expected, monkeypatch):
    """The run stops with a message and resumes with equal losses."""
    monkeypatch.setenv('RUN', 'worker death')
    process = start(folder, 'worker', pause=0.05)
    while len(losses(folder, 'worker')) < 3:
        assert process.poll() is None, process.communicate()[0][-2000:]
        time.sleep(0.01)
    worker, = set(processes_with('RUN=worker death')) - {process.pid}
    os.kill(worker, signal.SIGKILL)
    log = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    # In time PyTorch names the signal, too.
    assert f'DataLoader worker (pid(s) {worker}) exited unexpectedly' in log \
        or f'DataLoader worker (pid {worker}) is killed by signal' in log

    monkeypatch.delenv('RUN')
    process = start(folder, 'worker')
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 0, log[-2000:]
    assert set(losses(folder, 'worker')) == set(expected)


@pytest.mark.parametrize('killed', [True, False])
def test_a_worker_that_is_lost_while_it_hands_over_a_batch(killed):
    """It is named; other errors of the connection stay as they are."""
    worker = multiprocessing.Process(target=time.sleep, args=(60, ))
    worker.start()

    class Loader:

        def __iter__(self):
            yield 'batch'
            if killed:
                worker.kill()
            raise ConnectionResetError('by peer')

    try:
        batches = load_batches(Loader())
        assert next(batches) == 'batch'
        with pytest.raises((RuntimeError, OSError)) as caught:
            next(batches)
    finally:
        worker.kill()
        worker.join()
    if killed:
        assert f'worker (pid(s) {worker.pid}) exited' in str(caught.value)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
    else:
        assert caught.type is ConnectionResetError
