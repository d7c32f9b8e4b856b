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

from greenmim.engine import ProgressHook, ProvenanceHook
from greenmim.engine.hooks import provenance_hook


class Terminal(io.StringIO):

    def isatty(self):
        return True


@pytest.fixture
def runner(tmp_path):
    return SimpleNamespace(
        log_dir=str(tmp_path),
        max_iters=4,
        iter=1,
        logger=logging.Logger('run'),
        message_hub=SimpleNamespace(
            get_scalar=lambda name: HistoryBuffer([0.25], [1])))


@pytest.mark.parametrize(
    'stream', [Terminal(), io.StringIO()], ids=['terminal', 'file'])
def test_a_bar_on_a_terminal_alone(runner, monkeypatch, stream):
    monkeypatch.setattr(sys, 'stderr', stream)
    hook = ProgressHook()
    hook.before_train(runner)
    for i in range(3):
        hook.after_train_iter(runner, batch_idx=i)
    hook.after_run(runner)
    text = stream.getvalue()
    if stream.isatty():
        assert '4/4' in text and 'loss 0.2500' in text
    else:
        assert text == ''


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
    assert 'loss 0.2500' in shown
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
