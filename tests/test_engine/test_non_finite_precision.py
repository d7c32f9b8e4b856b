# Copyright (c) greenmim authors. All rights reserved.
"""Runs that are not finite in low precision alone, and gradient scalers.

MMEngine's ``AmpOptimWrapper`` asserts a GPU when it is built; all else of it
is as it is, with autocast of the CPU.
"""
import math
from contextlib import contextmanager

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from greenmim.engine import NonFiniteHook
from greenmim.engine.non_finite.optim_wrapper import precision_of
from tests.micro import micro_runner
from tests.test_engine.test_non_finite_hook import Poisoned


class CPUAmp(AmpOptimWrapper):

    def __init__(self, dtype, scaler=dict(init_scale=2.**4), static=None):
        weight = nn.Parameter(torch.ones(1))  # replaced, see `run`
        OptimWrapper.__init__(self, torch.optim.SGD([weight], 1e-4))
        self.cast_dtype = dtype
        self._scale_update_param = static
        self.loss_scaler = torch.amp.GradScaler(
            'cpu', enabled=dtype is torch.float16, **scaler)

    @contextmanager
    def optim_context(self, model):
        with OptimWrapper.optim_context(self, model), torch.autocast(
                'cpu', self.cast_dtype):
            yield


class Numbers(BaseDataset):
    """Ones, from the fifth on other values."""

    def __init__(self, late):
        self.late = late
        super().__init__()

    def load_data_list(self):
        return [dict(x=1. if i < 4 else self.late) for i in range(16)]


class Large(BaseModel):
    """30 000 times the input, beyond float16 from 3 on."""

    def __init__(self, weight=3e4):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1), weight))

    def forward(self, x, sample_idx, mode):
        return dict(
            loss=nn.functional.linear(x.float()[:, None],
                                      self.weight).float().mean())


class Close(Large):
    """1.001 less 1, which is 0 in bfloat16; first with 2.002 instead."""

    def forward(self, x, sample_idx, mode):
        y = nn.functional.linear(3 - x.float()[:, None], self.weight)
        return dict(loss=(y.float() - 1).log().abs().mean())


class Steep(Large):
    """A gradient of 1, and of infinity where x is not 1."""

    def forward(self, x, sample_idx, mode):
        y = nn.functional.linear(x.float()[:, None], self.weight)
        return dict(loss=(y if x == 1 else Poisoned.apply(y)).float().mean())


def run(work_dir, model, late, wrapper, max_iters=16, resume=False, **kwargs):
    hook = NonFiniteHook(**kwargs)
    wrapper.optimizer.param_groups[0]['params'] = [model.weight]
    micro_runner(
        work_dir,
        dict(
            batch_size=1,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            dataset=Numbers(late)), [hook],
        model,
        dict(interval=4, by_epoch=False),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=wrapper,
        resume=resume,
        log_level='WARNING').train()
    return hook


def log_of(work_dir):
    return ''.join(path.read_text() for path in work_dir.rglob('*.log'))


def test_a_higher_precision_cures_what_a_lower_rate_does_not(tmp_path):
    with pytest.raises(RuntimeError, match='2 rollbacks did not help'):
        run(tmp_path / 'lower',
            Large(),
            4.,
            CPUAmp(torch.float16),
            patience=2,
            max_rollbacks=2)
    model, wrapper = Large(), CPUAmp(torch.float16)
    hook = run(
        tmp_path / 'higher',
        model,
        4.,
        wrapper,
        patience=2,
        rollback='higher_precision')
    assert (hook.skipped, hook.rollbacks) == (2, 1)
    assert precision_of(wrapper) is torch.bfloat16
    assert not wrapper.loss_scaler.is_enabled()
    # Four steps with a gradient of 1, ten of 4; the rate stayed.
    assert wrapper.get_lr()['lr'] == [1e-4]
    moved = 3e4 - torch.load(
        tmp_path / 'higher' / 'iter_16.pth',
        weights_only=True)['state_dict']['weight'].item()
    assert moved == pytest.approx((4 + 10 * 4) * 1e-4, abs=3e-2)
    assert 'changed the precision to bfloat16' in log_of(tmp_path / 'higher')


def test_a_resumed_run_stays_in_the_higher_precision(tmp_path):
    options = dict(patience=2, rollback='higher_precision')
    run(tmp_path, Large(), 4., CPUAmp(torch.float16), 8, **options)
    saved = torch.load(tmp_path / 'iter_8.pth', weights_only=True)
    assert saved['optimizer']['loss_scaler'] == {}
    wrapper = CPUAmp(torch.float16)
    hook = run(tmp_path, Large(), 4., wrapper, 12, resume=True, **options)
    assert (hook.skipped, hook.rollbacks) == (0, 0)
    assert precision_of(wrapper) is torch.bfloat16
    assert 'Computing in bfloat16, to which' in log_of(tmp_path)
    # A config that computes in float32 now is left alone.
    wrapper = OptimWrapper(torch.optim.SGD([torch.ones(1)], 1e-4))
    run(tmp_path, Large(), 4., wrapper, 13, resume=True, **options)
    assert precision_of(wrapper) is torch.float32


def test_float32_after_bfloat16_then_a_lower_rate(tmp_path):
    wrapper = CPUAmp(torch.bfloat16)
    options = dict(patience=1, rollback='higher_precision')
    hook = run(tmp_path / 'cured', Close(1.001), 2., wrapper, **options)
    assert (hook.skipped, hook.rollbacks) == (1, 1)
    assert precision_of(wrapper) is torch.float32
    assert wrapper.get_lr()['lr'] == [1e-4]

    wrapper = CPUAmp(torch.bfloat16)
    with pytest.raises(RuntimeError, match='3 rollbacks did not help'):
        run(tmp_path / 'not', Large(), math.inf, wrapper, **options)
    assert wrapper.get_lr()['lr'] == [0.25 * 1e-4]
    assert 'multiplied the learning rate' in log_of(tmp_path / 'not')


def test_a_scaler_that_finds_its_scale_is_let_alone(tmp_path):
    """At first 65536 is beyond float16."""
    wrapper = CPUAmp(torch.float16, dict(init_scale=2.**18))
    model = Steep(1.)
    hook = run(tmp_path, model, 1., wrapper, patience=1)
    assert (hook.skipped, hook.rollbacks) == (0, 0)
    assert wrapper.loss_scaler.get_scale() == 2.**15
    assert not (tmp_path / 'non_finite').exists()
    assert model.weight < 1 - 10e-4


@pytest.mark.parametrize('static, first', [(None, 9), (16., 5)])
def test_a_scaler_does_not_skip_for_ever(tmp_path, static, first):
    """From 16 on it falls to 1 in four steps; one that is fixed cannot."""
    wrapper = CPUAmp(torch.float16, static=static)
    with pytest.raises(RuntimeError, match='1 rollbacks did not help'):
        run(tmp_path, Steep(1.), 4., wrapper, patience=2, max_rollbacks=1)
    files = sorted((tmp_path / 'non_finite').glob('iter_*'))
    iterations = sorted(
        torch.load(file, weights_only=True)['iteration'] for file in files)
    assert iterations == list(range(first, first + 4))
