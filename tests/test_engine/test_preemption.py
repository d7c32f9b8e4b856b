# Copyright (c) greenmim authors. All rights reserved.
"""What a signal to all processes of a job must not do."""
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from greenmim.engine import PreemptionHook, leave_signals_to_parent
from tests.conftest import CHECKOUT

LOADING = '''
import sys
import time
from functools import partial
from types import SimpleNamespace

from torch.utils.data import DataLoader, Dataset

from greenmim.engine import PreemptionHook, leave_signals_to_parent


class Slow(Dataset):

    def __len__(self):
        return 6

    def __getitem__(self, index):
        time.sleep(0.3)
        return index


def initialize(worker_id):
    print('initialized', worker_id, flush=True)


def make_loader(function=initialize):
    return DataLoader(Slow(), num_workers=1, worker_init_fn=function)


if sys.argv[1] == 'config':  # as an iteration-based loop needs it
    loader = make_loader(partial(leave_signals_to_parent, then=initialize))
else:
    loader = make_loader()
hook = PreemptionHook()
hook.before_run(None)
hook.before_train(SimpleNamespace(
    train_loop=None,
    train_dataloader=loader,
    val_loop=None))
for index in loader:
    print(int(index), flush=True)
print('received', hook.received)

worker = iter(loader)._workers[0]
time.sleep(1)
worker.terminate()
worker.join(10)
print('ended with', worker.exitcode)
'''

LEAVING = '''
import time
from types import SimpleNamespace

import torch.distributed as dist
from mmengine.logging import MMLogger

from greenmim.engine import PreemptionHook, SafeCheckpointHook


class SlowCheckpointHook(SafeCheckpointHook):
    """As MMEngine's, it writes in the first process alone."""

    def save(self, runner, filename):
        if dist.get_rank() == 0:
            time.sleep(2)
            print('saved', time.time(), flush=True)


dist.init_process_group('gloo')
hook = PreemptionHook()
hook.before_run(None)
hook.received = 15 * dist.get_rank()
runner = SimpleNamespace(
    iter=4,
    hooks=[SlowCheckpointHook()],
    logger=MMLogger.get_instance('test', log_level='ERROR'))
try:
    hook.after_train_iter(runner, batch_idx=0)
finally:
    print('leaving', time.time(), flush=True)
'''


def start(text, *arguments, **variables):
    command = [sys.executable, '-W', 'ignore', '-c', text, *arguments]
    return subprocess.Popen(
        command,
        env=dict(
            os.environ,
            PYTHONPATH=str(CHECKOUT),
            OMP_NUM_THREADS='1',
            **variables),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True)


@pytest.mark.skipif(
    not hasattr(signal, 'sigwaitinfo'), reason='Python cannot wait for them')
@pytest.mark.parametrize('way, number', [
    ('hook', signal.SIGTERM),
    ('config', signal.SIGTERM),
    ('hook', signal.SIGINT),
    pytest.param('hook', signal.SIGUSR1, marks=pytest.mark.slow),
    pytest.param('config', signal.SIGUSR1, marks=pytest.mark.slow),
    pytest.param('config', signal.SIGINT, marks=pytest.mark.slow),
])
def test_workers_continue_until_their_parent_ends_them(way, number):
    process = start(LOADING, way)
    assert process.stdout.readline() == 'initialized 0\n'
    assert process.stdout.readline() == '0\n'
    os.killpg(process.pid, number)
    output = process.communicate(timeout=60)[0]
    if number == signal.SIGINT:
        hint, = re.findall('\nCtrl-C: .*\n', output)
        assert 'press it again to exit at once' in hint
        output = output.replace(hint, '')
    assert output.split('\n') == [
        '1', '2', '3', '4', '5', f'received {int(number)}', 'initialized 0',
        'ended with 0', ''
    ]
    assert process.returncode == 0


def test_unprotected_workers_that_have_started_are_warned_of(monkeypatch):
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    warnings = []
    runner = SimpleNamespace(
        train_loop=object.__new__(IterBasedTrainLoop),
        train_dataloader=DataLoader([0], num_workers=1),
        val_loop=None,
        logger=SimpleNamespace(warning=warnings.append))
    PreemptionHook().before_train(runner)
    assert "type='greenmim.leave_signals_to_parent'" in warnings[0]
    runner.train_dataloader.worker_init_fn = leave_signals_to_parent
    PreemptionHook().before_train(runner)
    assert len(warnings) == 1


def test_the_second_ctrl_c_stops_at_once(monkeypatch):
    hook = PreemptionHook()
    before = signal.getsignal(signal.SIGINT)
    try:
        hook.before_train(
            SimpleNamespace(
                train_loop=None,
                train_dataloader=DataLoader([0]),
                val_loop=None))
        os.kill(os.getpid(), signal.SIGINT)
        assert hook.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_all_processes_leave_when_one_has_saved():
    """And signals that come meanwhile do not change the exit code."""
    address = dict(
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(21000 + os.getpid() % 9000))
    processes = [start(LEAVING, RANK=str(rank), **address) for rank in (0, 1)]
    times = {}
    for process in processes:
        for line in process.stdout:
            word, seconds = line.split()
            times.setdefault(word, []).append(float(seconds))
            if word == 'leaving':
                break
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
    assert [process.wait(timeout=60) for process in processes] == [75, 75]
    assert times['saved'][0] <= min(times['leaving'])


def test_without_a_hook_that_saves():
    hook = PreemptionHook()
    runner = SimpleNamespace(hooks=[], iter=3)
    hook.after_train_iter(runner)
    hook.received = signal.SIGTERM
    with pytest.raises(RuntimeError, match='SafeCheckpointHook among the'):
        hook.after_train_iter(runner)
