# Copyright (c) greenmim authors. All rights reserved.
import errno
import os
import stat

import pytest
import torch
from mmengine.fileio import get_file_backend

from greenmim.engine import SafeCheckpointHook
from greenmim.engine.checkpoints.latest import (find_latest_whole_checkpoint,
                                                is_whole)


@pytest.fixture
def backend():
    return get_file_backend(backend_args=dict(backend='greenmim.atomic'))


def test_writes_and_replaces(backend, tmp_path):
    file = tmp_path / 'new folder' / 'file'
    for content in (b'one', b'two'):
        backend.put(content, file)
        assert file.read_bytes() == content
        assert backend.get(file) == content
    assert os.listdir(file.parent) == ['file']
    plain = tmp_path / 'plain'
    plain.write_bytes(b'')
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(
        plain.stat().st_mode)


@pytest.mark.parametrize('error', [
    OSError(errno.ENOSPC, 'No space left on device'),
    KeyboardInterrupt(),
])
def test_a_failure_leaves_the_old_file(backend, tmp_path, monkeypatch, error):
    file = tmp_path / 'file'
    backend.put(b'old', file)

    def fail(handle):
        raise error

    monkeypatch.setattr(os, 'fsync', fail)
    match = 'free some space' if isinstance(error, OSError) else ''
    with pytest.raises(type(error), match=match) as caught:
        backend.put(b'new', file)
    if isinstance(error, OSError):
        assert caught.value.errno == errno.ENOSPC
        assert str(file) in str(caught.value)
    assert file.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['file']


def test_checkpoints_are_atomic_unless_told_otherwise():
    atomic = dict(backend='greenmim.atomic')
    assert SafeCheckpointHook().backend_args == atomic
    assert SafeCheckpointHook(out_dir='local').backend_args == atomic
    assert SafeCheckpointHook(out_dir='s3://bucket').backend_args is None
    local = dict(backend='local')
    assert SafeCheckpointHook(backend_args=local).backend_args == local


def save(folder, name, seconds):
    path = folder / name
    torch.save(dict(x=torch.rand(1000)), path)
    os.utime(path, (seconds, seconds))
    return path


def test_the_newest_whole_checkpoint(tmp_path):
    assert find_latest_whole_checkpoint(str(tmp_path / 'missing')) is None
    assert find_latest_whole_checkpoint(str(tmp_path)) is None
    oldest = save(tmp_path, 'epoch_1.pth', 1000)
    save(tmp_path, 'best_loss_epoch_9.pth', 9000)
    newer = save(tmp_path, 'iter_5.pth', 2000)
    newest = save(tmp_path, 'epoch_2.pth', 3000)
    assert find_latest_whole_checkpoint(str(tmp_path)) == str(newest)
    # What the last run wrote, whatever lies beside it.
    (tmp_path / 'last_checkpoint').write_text(str(newer))
    assert find_latest_whole_checkpoint(str(tmp_path)) == str(newer)

    content = bytearray(newer.read_bytes())
    content[1500] ^= 1  # a bit of a weight
    newer.write_bytes(content)
    assert find_latest_whole_checkpoint(str(tmp_path)) == str(newest)

    content = newest.read_bytes()
    newest.write_bytes(content[:len(content) // 2])  # cut off
    assert not is_whole(str(newest))
    os.utime(newest, (3000, 3000))
    assert find_latest_whole_checkpoint(str(tmp_path)) == str(oldest)

    oldest.write_bytes(b'')
    with pytest.raises(ValueError, match='all 3 are damaged'):
        find_latest_whole_checkpoint(str(tmp_path))


def test_a_checkpoint_in_another_folder(tmp_path):
    (tmp_path / 'run').mkdir()
    path = save(tmp_path, 'epoch_1.pth', 1000)
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(path))
    assert find_latest_whole_checkpoint(str(tmp_path / 'run')) == str(path)
