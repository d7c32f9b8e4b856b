# Copyright (c) greenmim authors. All rights reserved.
"""One parameter group for each setting, and checkpoints from before."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from greenmim.engine.merged_groups import merge_checkpoint
from tests.conftest import CHECKOUT
from tests.micro import micro_model, micro_runner

EACH, MERGED = ('DefaultOptimWrapperConstructor',
                'greenmim.MergedOptimWrapperConstructor')
# The groups differ in rate and decay, and alternate in the model.
PARAMWISE = dict(
    norm_decay_mult=0.,
    bias_decay_mult=0.,
    custom_keys=dict(last=dict(lr_mult=0.1)))


class Numbers(BaseDataset):

    def load_data_list(self):
        return [dict(x=float(i + 1)) for i in range(8)]


class Layers(BaseModel):

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x, sample_idx, mode):
        x = torch.stack([x, x.sin(), x.cos()], 1).float()
        return dict(loss=self.last(self.norm(self.first(x))).square().mean())


def runner_of(work_dir, constructor, max_iters=8, **options) -> Runner:
    return micro_runner(
        work_dir,
        dict(dataset=Numbers(), batch_size=2), [
            dict(type='greenmim.NonFiniteHook'),
        ],
        Layers(),
        dict(interval=4, by_epoch=False),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(
            constructor=constructor,
            optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1),
            paramwise_cfg=PARAMWISE),
        param_scheduler=dict(
            type='CosineAnnealingLR', by_epoch=False, T_max=8),
        **options)


def settings_of(model: nn.Module, wrapper: OptimWrapper) -> dict:
    factors = 'params', 'lr_mult', 'decay_mult'
    names = {param: name for name, param in model.named_parameters()}
    return {
        names.pop(param): {
            name: value
            for name, value in group.items() if name not in factors
        }
        for group in wrapper.optimizer.param_groups
        for param in group['params']
    }


@pytest.mark.parametrize('path', [
    'configs/greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k.py',
    'configs/simmim/simmim_swin-base-w6_8xb256-amp-steplr-800e_in1k-192px.py'
])
def test_a_recipe_has_as_many_groups_as_settings(path):
    cfg = Config.fromfile(CHECKOUT / path).optim_wrapper
    assert cfg.constructor == MERGED
    cfg.type = 'OptimWrapper'
    model = micro_model()
    merged = build_optim_wrapper(model, copy.deepcopy(cfg))
    cfg.constructor = EACH
    each = build_optim_wrapper(model, cfg)
    settings = settings_of(model, merged)
    assert settings == settings_of(model, each)
    assert len(each.optimizer.param_groups) == len(settings) > 40
    assert len(merged.optimizer.param_groups) == 2


def test_one_setting_is_one_group():
    model = Layers()
    for paramwise in {}, dict(bias_decay_mult=None, bypass_duplicate=True):
        wrapper = build_optim_wrapper(
            model,
            dict(
                constructor=MERGED,
                optimizer=dict(type='SGD', lr=1., weight_decay=1.),
                paramwise_cfg=paramwise))
        assert len(wrapper.optimizer.param_groups) == 1
        assert len(settings_of(model, wrapper)) == 6


def test_an_earlier_run_resumes(tmp_path):
    """With a group for each parameter in its checkpoint, and equal weights."""
    whole = runner_of(tmp_path / 'whole', EACH)
    whole.train()
    resumed = runner_of(
        tmp_path / 'half',
        MERGED,
        resume=True,
        load_from=str(tmp_path / 'whole/iter_4.pth'))
    resumed.train()
    assert len(whole.optim_wrapper.optimizer.param_groups) == 6
    assert len(resumed.optim_wrapper.optimizer.param_groups) == 3
    # MMEngine adds its base settings.
    assert len(resumed.param_schedulers[0].base_values) == 3 + 1
    before = settings_of(whole.model, whole.optim_wrapper)
    assert settings_of(resumed.model, resumed.optim_wrapper) == before
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    # Its own checkpoints, with groups that are merged already
    again = runner_of(
        tmp_path / 'half',
        MERGED,
        max_iters=9,
        resume=True,
        load_from=str(tmp_path / 'half/iter_8.pth'))
    again.train()
    assert len(again.optim_wrapper.optimizer.param_groups) == 3


def test_other_settings_in_the_checkpoint_are_refused():

    def build(constructor):
        return build_optim_wrapper(
            Layers(),
            dict(
                constructor=constructor,
                optimizer=dict(type='SGD', lr=1., weight_decay=1.),
                paramwise_cfg=PARAMWISE))

    earlier = build(EACH)
    # The norm's weight and bias
    earlier.optimizer.param_groups[2]['lr'] = 0.5
    with pytest.raises(ValueError, match='share a group.*DefaultOptim'):
        merge_checkpoint(build(MERGED), dict(optimizer=earlier.state_dict()))
