# Copyright (c) greenmim authors. All rights reserved.
"""A step that was not finite is computed again from what was written."""
import math
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from greenmim.engine.non_finite.step_record import (get_random_state, replay,
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


def test_all_generators_go_back():
    state = get_random_state()
    drawn = [(random.random(), np.random.normal(), torch.rand(1).item())]
    set_random_state(state)
    drawn += [(random.random(), np.random.normal(), torch.rand(1).item())]
    assert drawn[0] == drawn[1]
