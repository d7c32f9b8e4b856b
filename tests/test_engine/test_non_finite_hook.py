# Copyright (c) greenmim authors. All rights reserved.
"""Losses and gradients that are not finite, injected into real runs."""
import math
from pathlib import Path

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.overrides import TorchFunctionMode

from greenmim.engine import FiniteOptimWrapper, NonFiniteHook
from tests.micro import micro_runner


class Numbers(BaseDataset):

    def load_data_list(self):
        return [dict(x=float(i + 1)) for i in range(12)]


class Poisoned(torch.autograd.Function):
    """Finite values with gradients that are not."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * math.inf


class Slope(BaseModel):
    """Fails in the given iterations."""

    def __init__(self, failing, problem='loss'):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))
        self.register_buffer('running', torch.zeros(1))
        self.failing, self.problem = set(failing), problem
        self.iteration = 0

    def forward(self, x, sample_idx, mode):
        self.iteration += 1
        loss = (self.slope * x.float() - x.float()).square().mean()
        if self.iteration in self.failing:
            if self.problem == 'gradient':
                loss = Poisoned.apply(loss)
            else:
                loss = loss * math.nan
            if self.problem == 'buffer':
                self.running += math.nan
        return dict(loss=loss)


class OwnSteps(OptimWrapper):

    def update_params(self, loss):
        loss.backward()
        self.optimizer.step()
        self.zero_grad()


def run(work_dir, failing, problem='loss', wrapper=OptimWrapper, **kwargs):
    model = Slope(failing, problem)
    hook = NonFiniteHook(**kwargs)
    slopes, rates = [], []

    runner = micro_runner(
        work_dir,
        dict(
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=Numbers()), [hook],
        model,
        dict(interval=3, by_epoch=False),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(
            type=wrapper, optimizer=dict(type='SGD', lr=1e-3, momentum=.9)),
        param_scheduler=dict(
            type='CosineAnnealingLR', by_epoch=False, T_max=12),
        log_level='WARNING')
    original = runner.call_hook

    def call_hook(name, **kwargs):
        original(name, **kwargs)
        if name == 'after_train_iter':
            slopes.append(model.slope.item())
            rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    runner.call_hook = call_hook
    runner.train()
    return hook, slopes, rates


@pytest.mark.parametrize('problem', ['loss', 'gradient'])
def test_a_step_is_left_out(tmp_path, problem):
    hook, slopes, _ = run(tmp_path, [4], problem)
    assert len(slopes) == 12 and all(map(math.isfinite, slopes))
    assert slopes[3] == slopes[2] != slopes[4]
    assert hook.skipped == 1 and hook.rollbacks == 0
    report = torch.load(
        tmp_path / 'non_finite' / 'iter_4_rank_0.pth', weights_only=True)
    assert report['problem'] == problem and report['iteration'] == 4
    weights = torch.load(
        tmp_path / 'non_finite' / report['weights'], weights_only=True)
    assert weights['state_dict']['slope'] == slopes[2]
    assert 'optimizer' not in weights


def test_the_loss_is_checked_where_a_wrapper_steps_by_itself(tmp_path):
    hook, slopes, _ = run(tmp_path, [4], wrapper=OwnSteps)
    assert slopes[3] == slopes[2] != slopes[4]
    assert hook.skipped == 1 and all(map(math.isfinite, slopes))
    log, = tmp_path.rglob('*.log')
    assert 'OwnSteps has an update_params of its own' in log.read_text()


class Reads(TorchFunctionMode):
    """Lists the calls that wait for the device of a tensor."""
    waiting = ('tolist', 'item', '__bool__', '__int__', '__float__',
               '__index__', 'cpu', 'numpy')

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, '__name__', '') in self.waiting:
            self.calls.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('factor, problem', [(1., None), (math.nan, 'loss'),
                                             (math.inf, 'gradient')])
def test_a_step_waits_once_for_the_device(factor, problem):
    slope = nn.Parameter(torch.zeros(3))
    wrapper = FiniteOptimWrapper(OptimWrapper(torch.optim.SGD([slope], lr=1.)))
    loss = slope.sum()
    if problem == 'gradient':
        loss = Poisoned.apply(loss)
    elif problem == 'loss':
        loss = loss * factor
    with Reads() as reads:
        wrapper.update_params(loss)
    assert reads.calls == ['tolist']
    assert wrapper.problem == problem and slope.grad is None
    assert slope.isfinite().all() and bool(slope.any()) is (problem is None)


def test_a_loss_among_accumulated_ones():
    """It takes the accumulated gradients along, and the next count anew."""
    slope = nn.Parameter(torch.zeros(1))
    wrapper = FiniteOptimWrapper(
        OptimWrapper(torch.optim.SGD([slope], lr=1.), accumulative_counts=2))
    wrapper.initialize_count_status(nn.Linear(1, 1), 0, 6)
    for factor, expected in ((4., 0.), (math.nan, 0.), (2., 0.), (2., -2.),
                             (math.nan, -2.), (4., -4.)):
        wrapper.update_params(factor * slope.sum())
        assert slope.item() == expected
    assert wrapper.problem == 'loss'


def test_several_optimizers_are_refused():
    with pytest.raises(TypeError, match='a single OptimWrapper, got list'):
        FiniteOptimWrapper([])


def test_nothing_changes_without_a_problem(tmp_path):
    _, slopes, rates = run(tmp_path / 'with', [])
    assert not Path(tmp_path / 'with' / 'non_finite').exists()
    x = torch.arange(1., 13.).view(6, 2)
    slope = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([slope], 1e-3, momentum=0.9)
    for i in range(12):
        optimizer.param_groups[0]['lr'] = 1e-3 * (
            1 + math.cos(math.pi * i / 12)) / 2
        optimizer.zero_grad()
        (slope * x[i % 6] - x[i % 6]).square().mean().backward()
        optimizer.step()
        assert slopes[i] == pytest.approx(slope.item(), rel=1e-5)


def test_goes_back_with_a_lower_rate(tmp_path):
    plain = run(tmp_path / 'plain', [])
    hook, slopes, rates = run(
        tmp_path / 'failing', [5, 6], patience=2, lr_factor=0.1)
    assert hook.rollbacks == 1 and hook.in_a_row == 0
    assert slopes[:4] == plain[1][:4]
    assert slopes[5] == plain[1][2]  # the checkpoint of iteration 3
    for rate, plain_rate in zip(rates[5:], plain[2][5:]):
        assert rate == pytest.approx(0.1 * plain_rate)
    assert all(map(math.isfinite, slopes))


def test_a_damaged_buffer_goes_back_at_once(tmp_path):
    hook, slopes, _ = run(tmp_path, [5], 'buffer', patience=100)
    assert hook.rollbacks == 1
    assert all(map(math.isfinite, slopes))


def test_stops_where_nothing_helps(tmp_path):
    with pytest.raises(RuntimeError, match='no checkpoint'):
        run(tmp_path / 'early', [1, 2], patience=2)
    with pytest.raises(RuntimeError, match='2 rollbacks did not help'):
        run(tmp_path / 'late', range(4, 20), patience=1, max_rollbacks=2)
    for file in (tmp_path / 'late').glob('*.pth'):
        state = torch.load(file, weights_only=True)['state_dict']
        assert all(value.isfinite().all() for value in state.values())


def test_bad_arguments():
    with pytest.raises(ValueError, match='patience'):
        NonFiniteHook(patience=0)
    with pytest.raises(ValueError, match='lr_factor'):
        NonFiniteHook(lr_factor=2.)
    with pytest.raises(ValueError, match="'lower_lr' or 'higher_precision'"):
        NonFiniteHook(rollback='lower_precision')
