# Copyright (c) greenmim authors. All rights reserved.
"""What a run leaves in its folder, and what it shows on a terminal."""
import io
import json
import sys
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
        message_hub=SimpleNamespace(
            get_scalar=lambda name: HistoryBuffer([0.25], [1])))


@pytest.mark.parametrize('stream', [Terminal(), io.StringIO()], ids=str)
def test_a_bar_on_a_terminal_alone(runner, monkeypatch, stream):
    monkeypatch.setattr(sys, 'stderr', stream)
    hook = ProgressHook()
    hook.before_train(runner)
    for i in range(3):
        hook.after_train_iter(runner, i)
    hook.after_run(runner)
    text = stream.getvalue()
    if stream.isatty():
        assert '4/4' in text and 'loss 0.2500' in text
    else:
        assert text == ''


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
