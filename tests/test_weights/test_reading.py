# Copyright (c) greenmim authors. All rights reserved.
import argparse
import hashlib
import json
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from safetensors.torch import save_file
from torch import nn

from greenmim.weights import read_source, read_state_dict
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
