# Copyright (c) greenmim authors. All rights reserved.
"""Frozen stages in a distributed run: DDP waits for no gradient of theirs.

It looks for what has gradients when it is built, and stops at the second step
where it then gets none. So it does in a group of one process.
"""
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample
from torch import distributed

from greenmim.apis.backbones import BACKBONES, recipe_of
from greenmim.engine.launch import build_model
from tests.recipes import find, load

MICRO = [name for name in BACKBONES if name.endswith('-micro')]
PROBE = 'swin-base-w7_8xb256-amp-linear-coslr-90e_in1k'


@pytest.fixture(scope='module')
def group(tmp_path_factory):
    """A group of this process alone."""
    path = tmp_path_factory.mktemp('group') / 'store'
    distributed.init_process_group(
        'gloo', init_method=f'file://{path}', rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def train(model, batch, frozen):
    """Three steps of distributed training."""
    names = {
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    }
    assert any(name.startswith(frozen) for name in names)
    before = {k: v.clone() for k, v in model.named_parameters()}
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    wrapped.train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        wrapped.train_step(batch, OptimWrapper(optimizer))
    changed = {
        name
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert changed and not changed & names


@pytest.mark.parametrize('name', MICRO)
def test_pretraining_of_every_family(group, name):
    torch.manual_seed(0)
    cfg = recipe_of(name)
    cfg.model.backbone.frozen_stages = 1
    model = build_model(cfg)
    images = torch.randint(0, 256, (2, 3, 128, 128)).float()
    samples = [DataSample() for _ in images]
    train(model, dict(inputs=[images], data_samples=samples), 'backbone.')


def test_linear_probe(group):
    """The model of the recipe, with blocks fewer and narrower."""
    torch.manual_seed(0)
    cfg = load(find(PROBE))
    cfg = type(cfg)(dict(cfg.to_dict()))
    cfg.model.backbone.update(
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4]),
        init_cfg=None)
    cfg.model.neck[1].input_features = 64
    cfg.model.head.update(in_channels=64)
    model = build_model(cfg)
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    images = torch.randint(0, 256, (2, 3, 224, 224)).float()
    train(model, dict(inputs=images, data_samples=samples), 'backbone.')
