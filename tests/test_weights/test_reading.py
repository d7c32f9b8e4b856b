# Copyright (c) greenmim authors. All rights reserved.
import argparse
import hashlib
import json
import pickle
import sys
import types
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule, ExponentialMovingAverage
from safetensors.torch import save_file
from torch import nn

from greenmim.weights import (UnsafeCheckpoint, read_checkpoint, read_source,
                              read_state_dict, trusting)
from greenmim.weights.recorded_config import read_recorded
from tests.micro_checkpoint import SWIN, recorded

ONE, TWO = torch.ones(1), torch.full((1, ), 2.)


def write(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize('prefix', [
    '', 'backbone.', 'encoder.', 'module.', 'module.backbone.',
    'module.encoder.'
])
@pytest.mark.parametrize('container', [None, 'state_dict', 'model'])
def test_prefixes_and_containers(tmp_path, prefix, container):
    weights = {f'{prefix}a.weight': ONE, f'{prefix}b': TWO}
    path = write(tmp_path / 'a.pth',
                 weights if container is None else {container: weights})
    assert read_state_dict(path) == weights
    source = read_source(path)
    assert source.backbone == {'a.weight': ONE, 'b': TWO}
    assert source.prefix == prefix and not source.others
    digest = hashlib.sha256((tmp_path / 'a.pth').read_bytes()).hexdigest()
    assert source.sha256 == digest


def test_other_parts_are_separated(tmp_path):
    path = write(tmp_path / 'a.pth', {
        'backbone.a': ONE,
        'neck.a': TWO,
        'head.b': TWO
    })
    source = read_source(path)
    assert source.backbone == {'a': ONE}
    assert set(source.others) == {'neck.a', 'head.b'}
    path = write(tmp_path / 'b.pth', {'a': ONE, 'head.weight': TWO})
    assert set(read_source(path).others) == {'head.weight'}


def test_averages_of_mmengine(tmp_path):
    """Its hook swaps them: `state_dict` is what a loader should take."""
    model = nn.ModuleDict(dict(backbone=nn.Linear(1, 1)))
    average = ExponentialMovingAverage(model)
    nn.init.constant_(model.backbone.weight, 7.)
    state_dict, ema = model.state_dict(), average.state_dict()
    assert 'steps' in ema
    for name in list(state_dict):  # as EMAHook.before_save_checkpoint
        state_dict[name], ema[f'module.{name}'] = (ema[f'module.{name}'],
                                                   state_dict[name])
    path = write(tmp_path / 'a.pth',
                 dict(state_dict=state_dict, ema_state_dict=ema))
    raw = read_source(path, averaged=False)
    assert not raw.averaged and raw.backbone['weight'].item() == 7
    assert set(raw.backbone) == {'weight', 'bias'}
    for averaged in (None, True):
        source = read_source(path, averaged)
        assert source.averaged and source.backbone['weight'].item() != 7


@pytest.mark.parametrize('raw, average', [('state_dict', 'state_dict_ema'),
                                          ('model', 'model_ema')])
def test_averages_of_others(tmp_path, raw, average):
    path = write(tmp_path / 'a.pth', {raw: {'a': ONE}, average: {'a': TWO}})
    assert read_source(path).backbone == {'a': ONE}
    assert read_source(path, averaged=False).backbone == {'a': ONE}
    assert read_source(path, averaged=True).backbone == {'a': TWO}
    assert read_source(path, averaged=True).averaged


def test_metadata_of_safetensors(tmp_path):
    metadata = dict(greenmim=json.dumps(dict(img_size=192)))
    path = tmp_path / 'a.safetensors'
    save_file({'a': ONE}, path, metadata=metadata)
    assert read_source(path).metadata == dict(img_size=192)


def test_options_beside_the_weights(tmp_path, monkeypatch):
    """As MAE's descendants and SimMIM save them."""

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    module = types.ModuleType('yacs.config')
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
    monkeypatch.setitem(sys.modules, 'yacs.config', module)
    config = CfgNode(MODEL=CfgNode(NAME='simmim'))
    config.frozen = True
    path = write(
        tmp_path / 'a.pth',
        dict(
            model={'encoder.a': ONE},
            args=argparse.Namespace(lr=1.),
            config=config))
    monkeypatch.undo()
    assert read_source(path).backbone == {'a': ONE}


def test_plain_data_of_numpy_and_mmengine(tmp_path):
    """As MMEngine's hook and others save it; no code is run for it."""
    log = HistoryBuffer([0.5, 0.25], [1, 2])
    content = dict(
        a=ONE,
        log=log,
        number=np.float64(0.1),
        integer=np.int64(7),
        truth=np.bool_(True),
        text=np.str_('ä'),
        array=np.arange(6.).reshape(2, 3).T,
        big=np.arange(3, dtype='>i4'),
        words=np.array(['ab', 'c']),
        path=PurePosixPath('a/b'))
    found = read_checkpoint(write(tmp_path / 'a.pth', content))
    for name in 'number', 'integer', 'truth', 'text':
        assert found[name] == content[name].item(), name
    for name in 'array', 'big', 'words':
        assert np.array_equal(found[name], content[name]), name
        assert found[name].dtype == content[name].dtype.newbyteorder('=')
    assert found['path'] == 'a/b'
    assert isinstance(found['log'], HistoryBuffer)
    assert found['log'].mean() == log.mean() != 0
    for theirs, ours in zip(log.data, found['log'].data):
        assert np.array_equal(theirs, ours)


def test_a_log_cannot_replace_the_statistics(tmp_path):
    log = HistoryBuffer([1.], [1])
    kept = dict(HistoryBuffer._statistics_methods)
    log.statistics_methods = None
    path = write(tmp_path / 'a.pth', dict(a=ONE, log=log))
    read_checkpoint(path)
    assert HistoryBuffer._statistics_methods == kept


@pytest.mark.parametrize('hidden', [
    np.array([Path('x'), 1], dtype=object),
    np.zeros(2, dtype=[('a', 'O'), ('b', 'i4')]),
    np.zeros(2, dtype=[('a', 'i4')]),
    Fraction(1, 2)
])
def test_other_objects_are_refused_by_name(tmp_path, hidden):
    path = write(tmp_path / 'a.pth', dict(a=ONE, hidden=hidden))
    with pytest.raises(ValueError, match='cannot read .*a.pth') as caught:
        read_checkpoint(path)
    if isinstance(hidden, Fraction):
        assert isinstance(caught.value, UnsafeCheckpoint)
        assert 'holds fractions.Fraction,' in str(caught.value)
    with trusting():
        assert read_checkpoint(path)['a'] == ONE
    with pytest.raises(ValueError):
        read_checkpoint(path)


@pytest.mark.parametrize('names, prefix, averaged', [
    # compiled, in parallel, of Lightning
    (['_orig_mod.backbone.{}', '_orig_mod.neck.w'], '_orig_mod.backbone.', 0),
    (['module._orig_mod.{}'], 'module._orig_mod.', 0),
    (['model.{}', 'model.head.weight', 'criterion.w'], 'model.', 0),
    (['net.encoder.{}', 'net.decoder.w'], 'net.encoder.', 0),
    # trained beside an average
    (['student.{}', 'teacher.{}', 'head.w'], 'student.', 0),
    (['teacher.backbone.{}', 'student.backbone.{}'], 'student.backbone.', 0),
    (['ema_model.{}'], 'ema_model.', 1),
    # of another name, which all names have
    (['trunk.{}'], 'trunk.', 0),
    # transformers has an encoder beside the embeddings
    (['encoder.{}', 'embeddings.{}'], '', 0),
    # a list of stages is a part of the network
    (['layers.0.{}', 'layers.1.{}'], '', 0),
])  # yapf: disable
def test_wrappers_are_recognised(tmp_path, capsys, names, prefix, averaged):
    content = {
        name.format(end): torch.full((1, ), float(i))
        for i, name in enumerate(names)
        for end in ('blocks.w', 'norm.w')
    }
    path = write(tmp_path / 'a.pth', content)
    source = read_source(path)
    assert source.prefix == prefix and source.averaged == averaged
    assert {'blocks.w', 'norm.w'} == {
        name
        for name in source.backbone if not name.startswith('en')
    } or not prefix
    number = next(i for i, name in enumerate(names) if name.startswith(prefix))
    for name, tensor in source.backbone.items():
        assert tensor == content[prefix + name]
        assert not prefix or tensor == number
    if prefix:
        assert repr(prefix) in capsys.readouterr().out
    assert len(source.backbone) + len(source.others) == len(content)


def test_averages_by_name(tmp_path):
    path = write(
        tmp_path / 'a.pth', {
            f'{part}.{name}': tensor
            for part, tensor in (('student', ONE), ('teacher', TWO))
            for name in ('a', 'b.c')
        })
    assert read_source(path, True).backbone == {'a': TWO, 'b.c': TWO}
    assert read_source(path, True).averaged
    assert read_source(path, False).backbone == {'a': ONE, 'b.c': ONE}


def test_a_prefix_that_is_named(tmp_path):
    path = write(tmp_path / 'a.pth', {
        'student.a': ONE,
        'x.y.a': TWO,
        'x.y.b': TWO
    })
    for prefix in 'x.y', 'x.y.':
        source = read_source(path, prefix=prefix)
        assert source.backbone == {'a': TWO, 'b': TWO}
        assert source.prefix == 'x.y.'
    with pytest.raises(ValueError, match=r"such as \['student', 'x'\], got"):
        read_source(path, prefix='y')


def test_init_cfg_reads_what_the_tools_read(tmp_path):
    """Safetensors, and MMEngine's own files."""
    layer = nn.Linear(1, 1)
    save_file(
        dict(weight=layer.weight, bias=layer.bias), tmp_path / 'a.safetensors')
    write(tmp_path / 'a.pth',
          dict(state_dict=layer.state_dict(), log=HistoryBuffer([1], [1])))
    for name in 'a.safetensors', 'a.pth':
        model = BaseModule(
            dict(type='Pretrained', checkpoint=str(tmp_path / name)))
        model.weight, model.bias = (
            nn.Parameter(torch.zeros(shape)) for shape in ((1, 1), (1, )))
        model.init_weights()
        assert model.weight == layer.weight and model.bias == layer.bias
    write(tmp_path / 'b.pth', dict(state_dict={}, extra=Fraction(1, 2)))
    model = BaseModule(
        dict(type='Pretrained', checkpoint=str(tmp_path / 'b.pth')))
    with pytest.raises(UnsafeCheckpoint, match='fractions.Fraction'):
        model.init_weights()


class Payload:
    """Leaves a trace if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path, )


def test_no_code_of_the_file_is_run(tmp_path):
    trace = tmp_path / 'trace'
    path = write(tmp_path / 'a.pth',
                 dict(model={'a': ONE}, extra=Payload(trace)))
    with pytest.raises(ValueError, match='objects that could run code'):
        read_source(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()  # it would have been


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    'content', [b'', b'not a checkpoint', None],
    ids=['empty', 'text', 'truncated'])
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f'a{suffix}'
    if content is None:
        (torch.save if suffix == '.pth' else save_file)({'a': ONE}, path)
        content = path.read_bytes()
        content = content[:len(content) // 2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'cannot read .*a{suffix} '):
        read_source(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file .*nothing.pth'):
        read_source(tmp_path / 'nothing.pth')


@pytest.mark.parametrize('content', [
    dict(model=[ONE]),
    dict(model={'a': 1}),
    dict(model={}),
    [ONE],
    dict(model={3: ONE}),
    dict(epoch=3),
])
def test_foreign_files(tmp_path, content):
    with pytest.raises(ValueError, match='expected named tensors in .*a.pth'):
        read_source(write(tmp_path / 'a.pth', content))


def test_values_beside_tensors(tmp_path):
    path = write(tmp_path / 'a.pth', dict(model={'a': ONE, 'odd': 1}))
    with pytest.raises(ValueError, match=r"nothing but tensors .*\['odd'\]"):
        read_source(path)


def test_recorded_config():
    """The text that MMEngine writes is the config again."""
    backbone = read_recorded(recorded()['cfg'], 'model')['backbone']
    expected = Config(dict(a=SWIN)).a.to_dict()
    assert {key: backbone[key] for key in expected} == expected


@pytest.mark.parametrize('text', [
    None, '', 'model = (', 'model = 3', 'other = dict(a=1)',
    "model = dict(a=open('trace', 'w'))", "model = dict(a=__import__('os'))",
    'model = dict([(1, 2)])', 'model = ' + '[' * 5000
])
def test_other_text_says_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    assert read_recorded(text, 'model') == {}
    assert not list(tmp_path.iterdir())
