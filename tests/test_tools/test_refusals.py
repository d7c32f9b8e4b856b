# Copyright (c) greenmim authors. All rights reserved.
"""Checkpoints that no tool accepts: each says so in one sentence."""
import re
import sys
from fractions import Fraction

import pytest
import torch
from mmpretrain.models import ResNet

import greenmim
from greenmim.command import main
from tests.conftest import CHECKOUT
from tests.micro_checkpoint import make_swin, recorded, save_training

# CHECKPOINT and CONFIG are replaced. The config is of the checkpoint that the
# files here were before they were spoilt.
TOOLS = [
    'tools/train.py CONFIG --cfg-options load_from=CHECKPOINT',
    'tools/train.py CONFIG --resume CHECKPOINT',
    'tools/train.py CONFIG --cfg-options model.backbone.init_cfg.type='
    'Pretrained model.backbone.init_cfg.checkpoint=CHECKPOINT',
    'tools/test.py CLASSIFIER CHECKPOINT --cfg-options '
    'test_dataloader.dataset.data_root=LABELLED/train',
    'tools/model_converters/export_backbone.py CHECKPOINT --to mmdet',
    'tools/model_converters/import_checkpoint.py CHECKPOINT --from mmpretrain '
    '--out a.pth',
    'tools/visualization/reconstruct.py CONFIG CHECKPOINT IMAGES',
    'tools/benchmarks/knn.py CONFIG CHECKPOINT --data IMAGES',
    'tools/benchmarks/compare_with_scratch.py CHECKPOINT LABELLED --budget 1',
    'greenmim pretrain IMAGES --weights CHECKPOINT --backbone swin-micro '
    '--steps 1',
    'greenmim finetune CHECKPOINT LABELLED',
    'greenmim features CHECKPOINT IMAGES',
    'greenmim export CHECKPOINT --to safetensors',
    'greenmim export CHECKPOINT --to torchscript',
    'greenmim import CHECKPOINT --from greenmim',
    'greenmim reconstruct CONFIG CHECKPOINT IMAGES',
    'greenmim knn CONFIG CHECKPOINT --data LABELLED',
    'greenmim compare CHECKPOINT LABELLED --budget 1',
]
CLASSIFIER = CHECKOUT / 'tests' / 'data' / 'launch' / 'micro_classifier.py'
SPOILT = dict(
    unsafe=r'holds fractions\.Fraction, .*--trust-checkpoint',
    truncated='cannot read .*damaged',
    foreign='expected ')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('spoilt')
    save_training(
        folder / 'unsafe.pth',
        make_swin(),
        meta=recorded(),
        extra=Fraction(1, 2))
    whole = (folder / 'unsafe.pth').read_bytes()
    (folder / 'truncated.pth').write_bytes(whole[:len(whole) // 2])
    torch.save(
        dict(state_dict=ResNet(18).state_dict()), folder / 'foreign.pth')
    return folder


def run(line, run_tool, monkeypatch, tmp_path, capsys):
    """The error of a command line."""
    program, *words = line.split()
    if program == 'greenmim':
        monkeypatch.chdir(tmp_path)
        assert main(words) == 1
        # Behind what loggers of other tests complain of.
        printed = capsys.readouterr().err
        return printed[printed.index(f'greenmim {words[0]}: '):]
    with pytest.raises(SystemExit) as caught:
        run_tool(CHECKOUT / program, *words)
    return str(caught.value.code)


@pytest.mark.parametrize('spoilt', SPOILT)
@pytest.mark.parametrize('line', TOOLS)
def test_one_sentence(line, spoilt, files, images, labelled, make_config,
                      run_tool, monkeypatch, tmp_path, capsys):
    checkpoint = files / f'{spoilt}.pth'
    for name, value in dict(
            CHECKPOINT=checkpoint,
            CONFIG=make_config(),
            CLASSIFIER=CLASSIFIER,
            LABELLED=labelled,
            IMAGES=images).items():
        line = line.replace(name, str(value))
    error = run(line, run_tool, monkeypatch, tmp_path, capsys).strip()
    assert re.search(SPOILT[spoilt], error), error
    assert '\n' not in error and checkpoint.name in error, error


def test_trust(files, run_tool, tmp_path, monkeypatch, capsys):
    """The option is of the commands that read a checkpoint alone."""
    monkeypatch.chdir(tmp_path)
    words = ['export', str(files / 'unsafe.pth'), '--to', 'mmdet', '--out']
    assert main([*words, 'a.pth', '--trust-checkpoint']) == 0
    assert main([*words, 'b.pth']) == 1
    run_tool(CHECKOUT / 'tools/model_converters/export_backbone.py',
             *words[1:], 'c.pth', '--trust-checkpoint')
    assert '--trust-checkpoint' not in sys.argv
    assert greenmim.load('a.pth') is not None
    with pytest.raises(ValueError, match='Fraction'):
        greenmim.load(files / 'unsafe.pth')
    for command in ('pretrain', 'finetune', 'features', 'export', 'import',
                    'reconstruct', 'knn', 'compare'):
        with pytest.raises(SystemExit):
            main([command, '--help'])
        assert '--trust-checkpoint' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(['recipes', '--trust-checkpoint'])
