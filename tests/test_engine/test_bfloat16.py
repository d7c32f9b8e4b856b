# Copyright (c) greenmim authors. All rights reserved.
"""bfloat16 arithmetic without a GPU."""
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from greenmim.engine import FiniteOptimWrapper
from greenmim.engine.non_finite.optim_wrapper import precision_of


@pytest.fixture
def model() -> nn.Module:
    return nn.Linear(4, 2)


@pytest.fixture
def wrapper(model):
    return build_optim_wrapper(
        model,
        dict(
            type='greenmim.BFloat16OptimWrapper',
            optimizer=dict(type='SGD', lr=.5)))


def test_computes_in_bfloat16_and_keeps_float32(model, wrapper):
    images = torch.randn(3, 4)
    with wrapper.optim_context(model):
        out = model(images)
    assert out.dtype is torch.bfloat16
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(out, model(images))
    before = model.weight.detach().clone()
    wrapper.update_params(out.square().mean())
    assert model.weight.dtype is torch.float32
    assert not torch.equal(model.weight, before)
    assert model(images).dtype is torch.float32


def test_precision_can_be_raised(model, wrapper):
    assert precision_of(wrapper) is torch.bfloat16
    wrapper = FiniteOptimWrapper(wrapper)
    with wrapper.optim_context(model):
        assert model(torch.randn(3, 4)).dtype is torch.bfloat16
    wrapper.set_precision(torch.float32)
    with wrapper.optim_context(model):
        assert model(torch.randn(3, 4)).dtype is torch.float32
