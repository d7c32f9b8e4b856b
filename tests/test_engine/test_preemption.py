# Copyright (c) greenmim authors. All rights reserved.
"""What a signal to all processes of a job must not do."""
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from greenmim.engine import PreemptionHook
from tests.conftest import CHECKOUT

LOADING = '''
import time

from torch.utils.data import DataLoader, Dataset

from greenmim.engine import PreemptionHook

hook = PreemptionHook()
hook.before_run(None)
hook.before_train(None)


class Slow(Dataset):

    def __len__(self):
        return 6

    def __getitem__(self, index):
        time.sleep(0.3)
        return index


iterator = iter(DataLoader(Slow(), num_workers=1))
for index in iterator:
    print(int(index), flush=True)
print('received', hook.received)

worker = iter(DataLoader(Slow(), num_workers=1))._workers[0]
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
    hook.after_train_iter(runner, 0)
finally:
    print('leaving', time.time(), flush=True)
'''


def start(text, **variables):
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', text],
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
@pytest.mark.parametrize('number',
                         [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_workers_go_on_until_their_parent_ends_them(number):
    process = start(LOADING)
    assert process.stdout.readline() == '0\n'
    os.killpg(process.pid, number)
    output = process.communicate(timeout=60)[0]
    if number == signal.SIGINT:
        hint, = re.findall('\nCtrl-C: .*\n', output)
        assert 'once more to stop at once' in hint
        output = output.replace(hint, '')
    assert output.split('\n') == [
        '1', '2', '3', '4', '5', f'received {int(number)}', 'ended with 0', ''
    ]
    assert process.returncode == 0


def test_the_second_ctrl_c_stops_at_once(monkeypatch):
    hook = PreemptionHook()
    before = signal.getsignal(signal.SIGINT)
    try:
        hook.before_train(None)
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
