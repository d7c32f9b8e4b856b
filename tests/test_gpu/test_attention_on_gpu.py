# Copyright (c) greenmim authors. All rights reserved.
"""The attention backends on a GPU, in the precisions that it has."""
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from greenmim.ops import GroupIndex, group_attention
from tests.test_ops.test_attention_backends import (LARGE, MUTATIONS, Case,
                                                    errors_of, make_plan)

pytestmark = pytest.mark.gpu

# Relative to the largest entry of a tensor. The kernels' exponentials are
# exact to 2e-7.
LIMITS = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
CASES = [
    Case(d=32, heads=4, num_images=8),
    Case(d=24, num_masks=2),
    Case(window=14, shift=7, grid=(4, 4), d=32),
    replace(LARGE, side=8, shift=0, visible=0.75),
    replace(LARGE, side=7, shift=0, visible=1., num_images=40),
]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('dtype', LIMITS, ids=str)
@pytest.mark.parametrize('backend', ['eager', 'sdpa', 'fused'])
def test_backends_equal_loops(backend, dtype, case):
    case = replace(
        case,
        backend=backend,
        dtype=dtype,
        table_dtype=torch.float32,
        device='cuda')
    for name, error in errors_of(case).items():
        assert error <= LIMITS[dtype], name


@pytest.mark.parametrize('backend, mutation', [
    (backend, mutation) for mutation, backends in MUTATIONS.items()
    for backend in backends
], ids=lambda value: getattr(value, '__name__', value))  # yapf: disable
def test_the_comparison_sees_a_mutation(backend, mutation):
    case = Case(
        num_images=1,
        grid=(1, 4),
        heads=1,
        d=16,
        backend=backend,
        device='cuda')
    assert max(errors_of(case, mutation).values()) > 0.1


def test_the_kernels_run():
    """And none of PyTorch's attention in their place."""
    plan, tokens, _ = make_plan(Case())
    device = torch.device('cuda')
    index = GroupIndex.from_plan(plan, 2, device)
    qkv = torch.randn(
        2,
        len(tokens),
        3 * 2 * 32,
        dtype=torch.bfloat16,
        device=device,
        requires_grad=True)
    table = torch.randn(13**2, 2, device=device, requires_grad=True)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        group_attention(
            qkv, index, table, 0.2, backend='fused').sum().backward()
        torch.cuda.synchronize()
    names = {event.key for event in found.key_averages()}
    for name in '_forward', '_backward_q', '_backward_kv', '_backward_table':
        assert name in names
    assert not any('fmha' in name for name in names)


@pytest.mark.parametrize('with_table', [True, False])
def test_attention_of_pytorch_is_the_memory_efficient_one(with_table):
    """Neither cuDNN's, which is planned for every shape, nor plain products.
    """
    plan, tokens, _ = make_plan(Case())
    device = torch.device('cuda')
    index = GroupIndex.from_plan(plan, 2, device)
    qkv = torch.randn(
        2, len(tokens), 3 * 2 * 32, dtype=torch.bfloat16, device=device)
    qkv.requires_grad_()
    table = torch.randn(13**2, 2, device=device) if with_table else None
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        group_attention(
            qkv, index, table, 0.2, backend='sdpa').sum().backward()
        torch.cuda.synchronize()
    names = {event.key for event in found.key_averages()}
    assert any('fmha_cutlassF' in name for name in names)
    assert any('fmha_cutlassB' in name for name in names)
    assert not any('cudnn' in name for name in names)
