# Copyright (c) greenmim authors. All rights reserved.
"""What a run leaves in its folder, and what it shows on a terminal."""
import io
import json
import logging
import os
import re
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
from mmengine.logging import HistoryBuffer
from torch import nn
from torch.utils.data import DataLoader

from greenmim.engine import ProgressHook, ProvenanceHook
from greenmim.engine.hooks import progress_hook, provenance_hook
from greenmim.engine.screen import quiet


class Terminal(io.StringIO):

    def isatty(self):
        return True


@pytest.fixture
def runner(tmp_path):
    model = nn.Linear(8, 8)
    return SimpleNamespace(
        work_dir=str(tmp_path),
        log_dir=str(tmp_path),
        max_iters=4,
        max_epochs=1,
        iter=1,
        hooks=[],
        model=model,
        train_loop=None,
        train_dataloader=DataLoader(range(16), batch_size=4),
        logger=logging.Logger('run'),
        message_hub=SimpleNamespace(
            log_scalars={
                'train/loss': HistoryBuffer([0.25], [1]),
                'train/images_per_second': HistoryBuffer([7.], [1])
            },
            runtime_info=dict(verdict='still improving')))


@pytest.mark.parametrize(
    'stream', [Terminal(), io.StringIO()], ids=['terminal', 'file'])
def test_a_bar_on_a_terminal_alone(runner, monkeypatch, stream):
    monkeypatch.setattr(sys, 'stderr', stream)
    hook = ProgressHook()
    hook.before_train(runner)
    # Of a resumed run, whose loss is known before the first step.
    if stream.isatty():
        assert 'loss 0.2500' in hook.bar.tasks[0].fields['figures']
        assert hook.bar.tasks[0].completed == 1
    for i in range(3):
        hook.after_train_iter(runner, batch_idx=i)
    hook.after_run(runner)
    text = stream.getvalue()
    if stream.isatty():
        assert '4/4' in text and 'loss 0.2500' in text
        assert '7.0 images/s' in text and 'still improving' in text
    else:
        assert text == ''


def test_lines_of_a_file(runner, tmp_path):
    """A few of what is trained, then one for each interval; warnings."""
    screen, log = io.StringIO(), tmp_path / 'log'
    runner.logger.addHandler(logging.StreamHandler(screen))
    runner.logger.addHandler(logging.FileHandler(log))
    quiet(runner.logger)
    runner.logger.info('the environment')
    runner.logger.warning('look')
    hook = ProgressHook(interval=10)
    runner.iter, runner.max_iters = 0, 25
    hook.before_train(runner)
    for runner.iter in range(25):
        hook.after_train_iter(runner)
    lines = screen.getvalue().splitlines()
    assert lines[0] == 'look' and len(lines) <= 15
    for word in ('Linear', '0.0 M parameters', '16 images', '4 a batch',
                 '25 iterations', 'cpu', str(tmp_path)):
        assert any(word in line for line in lines[1:6]), word
    steps = [line for line in lines if re.match(r'\d+/25', line)]
    assert [line.split('/')[0] for line in steps] == ['1', '10', '20', '25']
    for line in steps:
        assert re.search(
            r'loss 0.2500  7.0 images/s  still improving  '
            r'\d:\d\d:\d\d left$', line), line
    assert len(log.read_text().splitlines()) == len(lines) + 1


def test_lines_of_several_processes(runner, monkeypatch):
    screen = io.StringIO()
    runner.logger.addHandler(logging.StreamHandler(screen))
    monkeypatch.setattr(progress_hook, 'get_world_size', lambda: 2)
    ProgressHook().before_train(runner)
    assert '4 a batch in each of 2 processes' in screen.getvalue()


@pytest.mark.parametrize('log_to_file', [False, True])
def test_the_log_stays_legible_above_the_bar(runner, monkeypatch, tmp_path,
                                             log_to_file):
    """On a real terminal, where bar and log share the lines."""
    monkeypatch.setenv('TERM', 'xterm-256color')
    leader, follower = os.openpty()
    with open(follower, 'w') as terminal, open(tmp_path / 'log', 'w') as file:
        monkeypatch.setattr(sys, 'stderr', terminal)
        monkeypatch.setattr(sys, 'stdout', file if log_to_file else terminal)
        handler = logging.StreamHandler(sys.stdout)
        runner.logger.addHandler(handler)
        hook = ProgressHook()
        hook.before_train(runner)
        for i in range(3):
            hook.after_train_iter(runner, batch_idx=i)
            hook.bar.refresh()
            runner.logger.info('line %d of the log', i)
        hook.after_run(runner)
        assert handler.stream is sys.stdout
        assert sys.stdout is (file if log_to_file else terminal)
        runner.logger.info('the last line')
    shown = b''
    with suppress(OSError):  # which ends the output on Linux
        while part := os.read(leader, 4096):
            shown += part
    os.close(leader)
    shown = shown.decode()
    logged = [f'line {i} of the log' for i in range(3)] + ['the last line']
    assert 'loss 0.2500' in shown and '7.0 images/s' in shown
    assert shown.rindex('\x1b[?25h') > shown.rindex('\x1b[?25l')  # the cursor
    lines = re.split(r'[\r\n]+', re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', shown))
    if log_to_file:
        assert 'of the log' not in shown
        lines = (tmp_path / 'log').read_text().splitlines()
    assert [line for line in lines if 'line' in line] == logged


def test_environment_and_commit(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py', 'config.py'])
    ProvenanceHook().before_train(runner)
    found = json.loads((tmp_path / 'environment.json').read_text())
    assert found['command'] == 'train.py config.py'
    assert found['PyTorch'].startswith('2.')
    commit = found['git_commit']
    assert commit is None or len(commit) == 40


def test_without_git(monkeypatch):

    def missing(*args, **kwargs):
        raise FileNotFoundError('git')

    monkeypatch.setattr(provenance_hook.subprocess, 'run', missing)
    assert provenance_hook._git('rev-parse', 'HEAD') is None
