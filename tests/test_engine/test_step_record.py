# Copyright (c) greenmim authors. All rights reserved.
"""A step that was not finite is computed again from what was written."""
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from greenmim.engine.non_finite.step_record import (get_random_state,
                                                    record_batch, replay,
                                                    set_random_state)
from greenmim.models import GreenMIMHead
from tests.micro import PREPROCESSOR, micro_config, micro_runner


class Doomed(GreenMIMHead):
    """Keeps the true losses, and fails in the given calls."""

    def __init__(self, failing):
        super().__init__()
        self.failing, self.true = failing, []

    def loss(self, *args):
        loss = super().loss(*args)
        self.true.append(loss.item())
        return loss * math.nan if len(self.true) in self.failing else loss


def make_model(scope, failing):
    config = micro_config(mask_scope=scope, data_preprocessor=PREPROCESSOR)
    config['backbone']['drop_path_rate'] = 0.4
    model = MODELS.build(config)
    model.head = Doomed(failing)
    return model


@pytest.mark.parametrize('scope', ['batch', 'image'])
@pytest.mark.parametrize('sampler', ['Default', 'greenmim.Seeded'])
@pytest.mark.parametrize('ahead', [True, False])
def test_the_loss_is_computed_again(tmp_path, ahead, sampler, scope):
    """With masks of the data loader, of the samples' seeds, or of neither."""
    model = make_model(scope, {3})
    hooks = [dict(type='greenmim.NonFiniteHook')]
    if ahead:
        hooks.append(dict(type='greenmim.PlanAheadHook'))
    pipeline = [
        dict(type='RandomResizedCrop', scale=96),
        dict(type='PackInputs')
    ]
    micro_runner(
        tmp_path,
        dict(
            batch_size=3,
            sampler=dict(type=f'{sampler}Sampler', shuffle=True),
            dataset=dict(
                type='greenmim.SamplePhotographs',
                num_views=12,
                pipeline=pipeline)),
        hooks,
        model,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        cfg=Config(dict())).train()
    assert len(model.head.true) == 4

    folder = tmp_path / 'non_finite'
    record = torch.load(folder / 'iter_3_rank_0.pth', weights_only=True)
    assert record['problem'] == 'loss' and len(record['samples']) == 3
    assert record['inputs'].shape == (3, 3, 96, 96)
    if ahead or sampler != 'Default':
        assert record['masks'].shape == (1 if scope == 'batch' else 3, 3, 3)
        assert (record['masks'].sum((1, 2)) == 7).all()
    torch.rand(7)
    again = make_model(scope, {1})
    weights = torch.load(folder / record['weights'], weights_only=True)
    again.load_state_dict(weights['state_dict'])
    again.train()
    loss = replay(again, record)['loss']
    assert loss.isnan() and again.head.true == [model.head.true[2]]
    # Another state of the generators drops other paths.
    record['random_state']['torch'] = torch.get_rng_state()
    replay(again, record)
    assert again.head.true[1] != again.head.true[0]


def test_labels_and_masks_of_the_samples(tmp_path):
    """What the pipeline gave is in the file, and is computed with again."""
    mask = torch.tensor([[True] * 3, [True] * 3, [True, False, False]])
    samples = [
        DataSample(
            metainfo=dict(
                img_path=Path('a', f'{i}.png'), scale=np.float32(.5)))
        for i in range(2)
    ]
    for i, sample in enumerate(samples):
        sample.set_gt_label(i).set_field(mask, 'mask')
    model = make_model('image', set())
    model.train()
    batch = dict(inputs=torch.rand(2, 3, 96, 96) * 255, data_samples=samples)
    record = dict(record_batch(model, batch), random_state=get_random_state())
    loss = model(**model.data_preprocessor(batch, True), mode='loss')['loss']
    torch.save(record, tmp_path / 'record.pth')
    record = torch.load(tmp_path / 'record.pth', weights_only=True)
    assert record['masks'] is None
    for i, sample in enumerate(record['samples']):
        assert sample['metainfo'] == dict(
            img_path=str(Path('a', f'{i}.png')), scale=.5)
        assert torch.equal(sample['data']['mask'], mask)
        assert sample['data']['gt_label'].tolist() == [i]
    assert replay(model, record)['loss'].item() == loss.item()


@pytest.mark.parametrize('gpu', [False, True])
def test_the_generator_of_a_gpu(monkeypatch, gpu):
    """It is restored where there is one."""
    restored = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda: 'its state')
    monkeypatch.setattr(torch.cuda, 'set_rng_state', restored.append)
    state = get_random_state()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    set_random_state(state)
    assert restored == ['its state'] * gpu


def test_all_generators_go_back():
    state = get_random_state()
    drawn = [(random.random(), np.random.normal(), torch.rand(1).item())]
    set_random_state(state)
    drawn += [(random.random(), np.random.normal(), torch.rand(1).item())]
    assert drawn[0] == drawn[1]
