# Copyright (c) greenmim authors. All rights reserved.
"""Stochastic depth that is drawn before the blocks."""
import pytest
import torch
from mmcv.cnn.bricks.drop import DropPath
from torch import nn

from greenmim.models.visible import draw_drop_paths, drop

RATES = [[0., 0.3], [0.5, 0.1]]


def modules_of(rates):
    return [[DropPath(rate) if rate else nn.Identity() for rate in block]
            for block in rates]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_the_numbers_are_those_of_mmcv(dtype):
    """To the last bit, outputs and gradients, drawn in the same order."""
    blocks = modules_of(RATES)
    branches = torch.randn(4, 8, 3, 5, dtype=dtype).unbind()
    modules = [module for block in blocks for module in block]
    results = []
    for use_mmcv in (True, False):
        given = [x.clone().requires_grad_() for x in branches]
        torch.manual_seed(0)
        if use_mmcv:
            out = [module(x) for module, x in zip(modules, given)]
        else:
            drawn = draw_drop_paths(blocks, given[0])
            assert [len(block) for block in drawn] == [2, 2]
            out = [drop(x, d) for x, d in zip(given, [*drawn[0], *drawn[1]])]
        sum(x.square().sum() for x in out).backward()
        results.append(out + [x.grad for x in given])
        following = torch.rand(2)  # nothing else was drawn
        results[-1].append(following)
    for expected, actual in zip(*results):
        assert torch.equal(actual, expected)
    zeros = torch.stack([(x == 0).flatten(1).all(1) for x in results[0][:4]])
    assert 0 < zeros.sum() < zeros[1:].numel()


def test_half_precision_rounds_once():
    x = torch.randn(64, 4, 8).bfloat16()
    (divisor, ), = draw_drop_paths([[DropPath(0.1)]], x)
    out = drop(x, divisor)
    kept = out.flatten(1).any(1)
    assert out.dtype == x.dtype and 0 < kept.sum() < 64
    assert torch.equal(out[kept], (x[kept].float() / 0.9).bfloat16())


def test_nothing_is_drawn_where_nothing_is_dropped():
    x = torch.randn(2, 3, 4)
    evaluated = [[module.eval() for module in block]
                 for block in modules_of(RATES)]
    state = torch.get_rng_state()
    for blocks in (modules_of([[0., 0.]]), evaluated):
        for divisors in draw_drop_paths(blocks, x):
            assert [*divisors] == [None, None]
            assert drop(x, divisors[0]) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_other_modules_are_refused():
    with pytest.raises(ValueError, match='expected DropPath'):
        draw_drop_paths([[nn.Dropout(0.1)]], torch.zeros(1, 2, 3))
