# Copyright (c) greenmim authors. All rights reserved.
import os

import pytest
import torch

from greenmim.engine.allocator import VARIABLES, grow_segments


@pytest.fixture(autouse=True)
def linux_with_cuda(monkeypatch):
    monkeypatch.setattr('sys.platform', 'linux')
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield
    # What the function sets is not the fixture's to undo.
    os.environ.pop('PYTORCH_CUDA_ALLOC_CONF', None)


def settings():
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def test_segments_grow():
    grow_segments()
    assert settings() == {
        'PYTORCH_CUDA_ALLOC_CONF': 'expandable_segments:True'
    }


@pytest.mark.parametrize('name', VARIABLES)
def test_the_settings_of_users_stay(monkeypatch, name):
    monkeypatch.setenv(name, 'max_split_size_mb:512')
    grow_segments()
    assert settings() == {name: 'max_split_size_mb:512'}
    monkeypatch.delenv(name)


def test_only_where_pytorch_can(monkeypatch):
    monkeypatch.setattr(torch.version, 'cuda', None)
    grow_segments()
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr('sys.platform', 'win32')
    grow_segments()
    assert settings() == {}
