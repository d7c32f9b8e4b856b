# Copyright (c) greenmim authors. All rights reserved.
"""One line says what was loaded, in every command that loads weights."""
import re

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

import greenmim
from greenmim.command import main
from greenmim.weights import load_weights, report_loading
from tests.conftest import CHECKOUT
from tests.micro_checkpoint import make_swin, recorded, save_training

CLASSIFIER = CHECKOUT / 'tests' / 'data' / 'launch' / 'micro_classifier.py'


class Model(nn.Module):

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 3)
        self.neck = nn.Linear(2, 3)


A, B = torch.ones(3, 2), torch.ones(3)
FILE = {'backbone.weight': A, 'neck.bias': A, 'head.weight': A}
LINE = ('weights: a.pth: backbone 1 of 2, neck 0 of 2 tensors; not loaded: '
        'backbone: 1 not in the file, neck: 1 not in the file, neck: 1 of '
        'another shape, head: 1 not in the model')


def test_line():
    """Once, by the next load alone, and of what was loaded."""
    model, lines = Model(), []
    report_loading(model, FILE, 'a.pth', lines.append)
    assert lines == []
    for _ in range(2):
        load_state_dict(model, FILE)  # of MMEngine
    assert lines == [LINE]
    assert torch.equal(model.backbone.weight, A)


def test_all_or_nothing(capsys):
    whole = {f'{name}.{key}': value for name in ('backbone', 'neck')
             for key, value in (('weight', A), ('bias', B))}  # yapf: disable
    load_weights(Model(), whole, 'a.pth')
    assert capsys.readouterr().out == (
        'weights: a.pth: backbone 2 of 2, neck 2 of 2 tensors\n')
    with pytest.raises(
            ValueError,
            match='a.pth every tensor of the model, an'
            'd no other, but 4 do not match, such as model.backb'):
        load_weights(Model(), FILE, 'a.pth')
    with pytest.raises(ValueError, match='a.pth, got 1 .*greenmim import'):
        load_weights(Model(), {'neck.bias': B}, 'a.pth')
    with pytest.raises(ValueError, match="names their prefix, as 'backbone.'"):
        load_weights(nn.Linear(2, 3), {'backbone.weight': A}, 'a.pth')


def test_resized_tables_are_loaded():
    swin, lines = make_swin(window_size=4), []
    given = make_swin().state_dict()
    report_loading(swin, given, 'a.pth', lines.append, 'backbone.', ['neck.x'])
    load_state_dict(swin, given)
    tables = sum('bias_table' in name for name in given)
    total = len(swin.state_dict())
    assert f'of {total} tensors, {tables} of them resized' in lines[0]
    assert lines[0].endswith('; not loaded: neck: 1 not in the model')


@pytest.fixture
def run_folder(tmp_path):
    """What is left of a run of the micro config's backbone."""
    init_default_scope('mmpretrain')
    arch = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    changes = dict(arch=arch, img_size=64, window_size=4)
    meta = recorded(**changes)
    return save_training(tmp_path / 'pre.pth', make_swin(**changes), meta=meta)


TOOLS = [
    'tools/train.py CONFIG --cfg-options load_from=FILE',
    'tools/train.py CONFIG --cfg-options model.backbone.init_cfg.type='
    'Pretrained model.backbone.init_cfg.checkpoint=FILE '
    'model.backbone.init_cfg.prefix=backbone',
    'tools/test.py CLASSIFIER FILE --cfg-options '
    'test_dataloader.dataset.data_root=LABELLED/train model.head.num_classes=6'
    ' data_preprocessor.num_classes=6 model.backbone.window_size=4 '
    'model.backbone.pad_small_map=True',
    'tools/benchmarks/knn.py CONFIG FILE --data LABELLED --size 128 '
    '--num-workers 0',
    pytest.param(
        'greenmim finetune FILE LABELLED --epochs 1', marks=pytest.mark.slow),
    'greenmim features FILE IMAGES',
]


@pytest.mark.parametrize('line', TOOLS)
def test_every_tool(line, run_folder, images, labelled, make_config, run_tool,
                    tmp_path, monkeypatch, capfd):
    for name, value in dict(
            FILE=run_folder,
            CONFIG=make_config(),
            CLASSIFIER=CLASSIFIER,
            LABELLED=labelled,
            IMAGES=images).items():
        line = line.replace(name, str(value))
    program, *words = line.split()
    if program == 'greenmim':
        monkeypatch.chdir(tmp_path)
        assert main(words) == 0
    else:
        run_tool(CHECKOUT / program, *words)
    printed = ''.join(capfd.readouterr())
    found = re.findall(r'weights: (.*): backbone (\d+) of (\d+)\b.*tensors',
                       printed)
    assert found and set(found) == {(str(run_folder), '85', '85')}, printed


def test_python(run_folder, capsys):
    greenmim.load(run_folder)
    assert capsys.readouterr().out.startswith(f'weights: {run_folder}: back')
