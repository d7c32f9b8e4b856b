# Copyright (c) greenmim authors. All rights reserved.
import argparse

import pytest
import torch

from greenmim.engine.checkpoint import read_state_dict

WEIGHTS = dict(weight=torch.arange(3.), bias=torch.ones(2))


@pytest.mark.parametrize('content', [
    WEIGHTS,
    dict(state_dict=WEIGHTS, meta=dict(epoch=3)),
])
def test_reads_checkpoints_and_bare_weights(content, tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save(content, path)
    state_dict = read_state_dict(path)
    assert state_dict.keys() == WEIGHTS.keys()
    assert all(state_dict[key].equal(WEIGHTS[key]) for key in WEIGHTS)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file .*gone.pth'):
        read_state_dict(str(tmp_path / 'gone.pth'))


@pytest.mark.parametrize('content', [
    dict(state_dict=WEIGHTS, options=argparse.Namespace()),
    dict(epoch=3),
    dict(state_dict=dict()),
    [torch.ones(1)],
], ids=['class', 'no weights', 'empty', 'list'])  # yapf: disable
def test_other_content(content, tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save(content, path)
    with pytest.raises(ValueError, match='a.pth'):
        read_state_dict(path)


@pytest.mark.parametrize('keep', [0, 10, 0.5])
def test_damaged_file(keep, tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(WEIGHTS, path)
    content = path.read_bytes()
    path.write_bytes(
        content[:keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ValueError, match='damaged'):
        read_state_dict(str(path))
