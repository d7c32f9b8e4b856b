# Copyright (c) greenmim authors. All rights reserved.
"""Frozen stages under tools/dist_train.sh, two processes over gloo.

tests/test_engine/test_frozen_stages.py trains all of these in a group of one
process, which costs little and is never left out.
"""
from pathlib import Path

import pytest
import torch

from greenmim.apis.backbones import BACKBONES
from greenmim.engine.launch import build_model
from tests.conftest import CHECKOUT
from tests.micro import save_classes, scalars_of
from tests.processes import cpu_environment, free_port, run
from tests.recipes import find, load

PROBE = 'swin-base-w7_8xb256-amp-linear-coslr-90e_in1k'
ARCH = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
MICRO = [name for name in BACKBONES if name.endswith('-micro')]
IN_CI = 'twins-svt-micro'


def train(recipe, folder, options):
    """Train a recipe in two processes; `run` checks the exit code."""
    options = ' '.join(options)
    return run(
        f'bash {CHECKOUT}/tools/dist_train.sh {find(recipe)} 2 --work-dir '
        f'{folder / "run"} --cfg-options {options}',
        cpu_environment(PORT=free_port()), folder)


def weights(path: Path):
    return torch.load(path, weights_only=True)['state_dict']


def check_frozen(before, after, model):
    """What the model freezes is as it was, and all else is not."""
    frozen = {k for k, v in model.named_parameters() if not v.requires_grad}
    changed = {
        name
        for name, _ in model.named_parameters()
        if not torch.equal(before[name], after[name])
    }
    assert any(name.startswith('backbone.') for name in frozen)
    assert changed and not changed & frozen
    return frozen, changed


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name == IN_CI else pytest.mark.slow)
    for name in MICRO
])
def test_pretraining_of_every_family(name, tmp_path):
    train(BACKBONES[name].recipe, tmp_path, [
        'model.backbone.frozen_stages=1', 'train_cfg.max_iters=3',
        'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'default_hooks.checkpoint.interval=1'
    ])
    cfg = load(find(BACKBONES[name].recipe)).copy()
    cfg.merge_from_dict({'model.backbone.frozen_stages': 1})
    before, after = (weights(tmp_path / f'run/iter_{i}.pth') for i in (2, 3))
    frozen, changed = check_frozen(before, after, build_model(cfg))
    assert any(name.startswith('backbone.') for name in changed)
    assert (tmp_path / 'run' / 'report.json').is_file()


@pytest.mark.parametrize('narrow', [
    pytest.param(True, id='narrow'),
    pytest.param(False, id='as-it-is', marks=pytest.mark.slow)
])
def test_linear_probe(narrow, tmp_path):
    """Eight images in batches of two, for two epochs; Swin-B as it is."""
    cfg = load(find(PROBE)).copy()
    save_classes(tmp_path / 'labelled' / 'train', (50, 90, 130, 170), 2)
    save_classes(tmp_path / 'labelled' / 'val', (50, 90, 130, 170), 1, 1)
    options = [
        f'model.backbone.init_cfg.checkpoint={tmp_path / "pre.pth"}',
        'train_cfg.max_epochs=2', 'train_dataloader.batch_size=2',
        'default_hooks.checkpoint.interval=1', *[
            f'{part}_dataloader.{option}' for part in ('train', 'val')
            for option in ('num_workers=0', 'persistent_workers=False',
                           f'dataset.data_root={tmp_path / "labelled"}')
        ], 'model.head.num_classes=4', 'data_preprocessor.num_classes=4',
        'val_evaluator.topk=1'
    ]
    changes = {'model.backbone.init_cfg': None, 'model.head.num_classes': 4}
    if narrow:
        changes.update({
            'model.backbone.arch': dict(ARCH, _delete_=True),
            'model.neck.1.input_features': 128,
            'model.head.in_channels': 128
        })
        options += [
            'model.backbone.arch._delete_=True',
            *(f'model.backbone.arch.{key}={value}'.replace(' ', '')
              for key, value in ARCH.items()),
            'model.neck.1.input_features=128', 'model.head.in_channels=128'
        ]  # yapf: disable
    cfg.merge_from_dict(changes)
    torch.manual_seed(0)
    model = build_model(cfg)
    start = {
        f'backbone.{k}': v
        for k, v in model.backbone.state_dict().items()
    }
    torch.save(dict(state_dict=start), tmp_path / 'pre.pth')

    train(PROBE, tmp_path, options)
    before, after = (weights(tmp_path / f'run/epoch_{i}.pth') for i in (1, 2))
    frozen, _ = check_frozen(before, after, model)
    assert {name for name, _ in model.backbone.named_parameters('backbone')
            } == frozen  # yapf: disable
    for name, tensor in start.items():
        assert torch.equal(tensor, after[name]), name
    scores = [row for row in scalars_of(tmp_path) if 'accuracy/top1' in row]
    assert len(scores) == 2
