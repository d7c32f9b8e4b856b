# Copyright (c) greenmim authors. All rights reserved.
"""The attention backends against one loop over windows, and their choice.

Triton reads ``TRITON_INTERPRET`` when it is imported, so the kernels run in a
process of their own, which has the variable from its start. Its interpreter
multiplies bf16 numbers wrongly (it takes their bits for integers), so the
kernels see bf16 on a GPU only.
"""
import importlib
import multiprocessing
import operator
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import greenmim.models.visible.windows as windows
from greenmim.models import GreenMIMSwinTransformer
from greenmim.ops import (BACKENDS, GroupIndex, GroupPlan, VisibleLayout,
                          Window, group_attention, plan_groups)
from greenmim.ops.group_attention import choose_backend
from tests.test_ops.test_group_attention import attention_by_loops
from tests.test_ops.test_grouping import tokens_by_loops

# The package has a function of this name.
group_attention_module = importlib.import_module(
    'greenmim.ops.group_attention')

CPU = torch.device('cpu')

# Relative to the largest entry of a tensor. The numbers themselves are spaced
# by 2e-16, 1e-7, 1e-3 and 8e-3.
LIMITS = {
    torch.float64: 1e-13,
    torch.float32: 5e-6,
    torch.float16: 4e-3,
    torch.bfloat16: 6e-2,
}
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Case:
    """An attention problem; everything in it follows from these numbers."""
    num_masks: int = 1
    num_images: int = 2
    grid: Tuple[int, int] = (3, 4)
    visible: float = 0.5
    side: int = 4
    window: int = 7
    shift: int = 3
    larger_table: int = 0
    heads: int = 2
    d: int = 24
    seed: int = 0
    backend: str = 'eager'
    dtype: torch.dtype = torch.float32
    table_dtype: Optional[torch.dtype] = None  # that of qkv
    device: str = 'cpu'


def make_plan(case: Case) -> Tuple[GroupPlan, list, torch.Generator]:
    generator = torch.Generator().manual_seed(case.seed)
    num_units = case.grid[0] * case.grid[1]
    kept = max(1, round(num_units * case.visible))
    order = torch.rand(case.num_masks, num_units, generator=generator)
    mask = (order.argsort(1).argsort(1) >= kept).view(-1, *case.grid)
    plan = plan_groups(
        VisibleLayout.from_mask(mask), case.side,
        Window(case.window, case.shift, case.window + case.larger_table))
    tokens = tokens_by_loops(mask, case.side, case.window, case.shift)
    return plan, tokens, generator


def errors_of(
    case: Case,
    mutate: Optional[Callable[[GroupIndex], GroupIndex]] = None
) -> Dict[str, float]:
    """Errors of the output and the gradients against the loop in fp64."""
    plan, tokens, generator = make_plan(case)
    S = case.num_images if case.num_masks == 1 else 1
    h, d, t = case.heads, case.d, plan.table_size

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    table_dtype = case.table_dtype or case.dtype
    inputs = (randn(S, len(tokens),
                    3 * h * d).to(case.dtype), randn((2 * t - 1)**2,
                                                     h).to(table_dtype))
    weight = randn(S, len(tokens), h * d).to(case.dtype)
    scale = 1.7 * d**-0.5

    def run(attend: Callable, *tensors: Tensor) -> Tuple[Tensor, ...]:
        *leaves, out_weight = tensors
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        out = attend(*leaves)
        grads = torch.autograd.grad((out * out_weight).sum(), leaves)
        return (out.detach(), *grads)

    index = GroupIndex.from_plan(plan, h, torch.device(case.device))
    index = mutate(index) if mutate else index
    actual = run(
        lambda qkv, table: group_attention(
            qkv, index, table, scale, backend=case.backend),
        *(x.to(case.device) for x in (*inputs, weight)))
    expected = run(
        lambda qkv, table: attention_by_loops(qkv, tokens, table, t, h, scale),
        *(x.double() for x in (*inputs, weight)))

    assert [x.dtype for x in actual] == [case.dtype, case.dtype, table_dtype]
    largest = max(float(x.abs().max()) for x in expected)
    errors = {}
    for name, x, target in zip(('out', 'qkv', 'table'), actual, expected):
        assert x.shape == target.shape and x.isfinite().all()
        size = float(target.abs().max())
        # Windows of one token leave the table without a gradient.
        size = size if size > 1e-9 * largest else largest
        errors[name] = float((x.cpu().double() - target).abs().max()) / size
    return errors


def check(case: Case) -> None:
    limit = max(LIMITS[case.dtype], LIMITS[case.table_dtype or case.dtype])
    for name, error in errors_of(case).items():
        assert error <= limit, (name, error)


@pytest.fixture(scope='module')
def interpreter():
    """``interpreter(function, *args)`` calls it where Triton interprets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TRITON_INTERPRET', '1')
        pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context('spawn'))
        with pool:
            assert pool.submit(os.getenv, 'TRITON_INTERPRET').result() == '1'
            patch.undo()
            yield lambda *call: pool.submit(*call).result()


@st.composite
def cases(draw: Callable,
          max_tokens: int,
          min_window: int = 1,
          max_images: int = 3,
          **fixed) -> Case:
    """Cases of up to that many tokens."""
    window = draw(st.integers(min_window, 9))
    num_images = draw(st.integers(1, max_images))
    num_masks = draw(st.sampled_from([1, num_images]))
    side = draw(st.sampled_from([1, 2, 4, 8]))
    rows, cols = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    units = max(1, max_tokens // (side * side * num_images))
    visible = draw(st.floats(0, 1))
    return Case(num_masks, num_images, (rows, cols),
                min(visible, units / (rows * cols)), side, window,
                draw(st.integers(0, window - 1)), draw(st.integers(0, 2)),
                draw(st.integers(1, 3)),
                draw(st.sampled_from([16, 24, 32, 48, 64])),
                draw(st.integers(0, 2**16)), **{
                    name: draw(strategy)
                    for name, strategy in fixed.items()
                })


def examples(number: int) -> settings:
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture])


@examples(50)
@given(
    cases(
        200,
        backend=st.sampled_from(['eager', 'sdpa']),
        dtype=st.sampled_from([torch.float64, torch.float32])))
def test_eager_and_sdpa_equal_loops(case):
    check(case)


@examples(40)
@given(
    cases(
        200,
        backend=st.sampled_from(['eager', 'sdpa']),
        dtype=st.sampled_from(HALF),
        table_dtype=st.sampled_from([None, torch.float32])))
def test_eager_and_sdpa_equal_loops_in_half_precision(case):
    check(case)


@examples(12)
@given(
    cases(
        24,
        min_window=4,  # the interpreter is slow where groups are many
        max_images=2,
        backend=st.just('fused'),
        dtype=st.sampled_from([torch.float32, torch.float16]),
        table_dtype=st.sampled_from([None, torch.float32])))
def test_fused_equals_loops(interpreter, case):
    interpreter(check, case)


# Groups of more than 64 slots take several tiles, two, three and four here. In
# the second case, windows are met that are not in the first tile.
LARGE = Case(
    num_images=1, grid=(2, 2), window=14, heads=1, d=16, backend='fused')


@pytest.mark.parametrize('size, case', [
    (84, replace(LARGE, side=8, shift=0)),
    (192, replace(LARGE, side=8, shift=0, visible=0.75)),
    (196, replace(LARGE, side=7, shift=0, visible=1., dtype=torch.float16)),
])
def test_fused_equals_loops_in_large_groups(interpreter, size, case):
    plan, _, _ = make_plan(case)
    assert plan.group_size == size
    interpreter(check, case)


def check_shared_programs(case: Case) -> None:
    """Check with programs that take as many images as they may."""
    from greenmim.ops import _triton_attention as kernels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, 'MIN_PROGRAMS', 1)
        patch.setattr(kernels, 'MAX_IMAGES', 3)
        check(case)


# Programs of three, three and one image, of one tile and of two.
@pytest.mark.parametrize('case', [
    Case(num_images=7, grid=(1, 3), d=16, backend='fused'),
    replace(
        LARGE,
        num_images=7,
        side=8,
        shift=0,
        dtype=torch.float16,
        table_dtype=torch.float32),
])
def test_images_of_one_program_equal_loops(interpreter, case):
    interpreter(check_shared_programs, case)


@pytest.mark.parametrize('backend', ['eager', 'sdpa'])
@pytest.mark.parametrize('num_masks', [1, 3])
def test_large_groups_equal_loops(backend, num_masks):
    check(
        replace(
            LARGE,
            num_masks=num_masks,
            side=8,
            shift=7,
            backend=backend,
            dtype=torch.float64))


def change_plan(index: GroupIndex, **changes: Tensor) -> GroupIndex:
    return replace(index, plan=replace(index.plan, **changes))


def swap_rows_and_columns(index: GroupIndex) -> GroupIndex:
    position, stride = index.plan.position_of_slot, 2 * index.plan.table_size
    stride -= 1
    swapped = position % stride * stride + position // stride
    return change_plan(index, position_of_slot=swapped)


def swap_two_positions(index: GroupIndex) -> GroupIndex:
    position = index.plan.position_of_slot.clone()
    position[:, :2] = position[:, :2].flip(1)
    return change_plan(index, position_of_slot=position)


def join_windows(index: GroupIndex) -> GroupIndex:
    """The windows of a group see each other."""
    window = index.plan.window_of_slot
    return change_plan(index, window_of_slot=window.clamp(max=0))


def attend_to_padding(index: GroupIndex) -> GroupIndex:
    window = index.plan.window_of_slot
    padded = torch.where(window < 0, window[:, :1], window)
    return change_plan(index, window_of_slot=padded)


def swap_two_tokens(index: GroupIndex) -> GroupIndex:
    """They are read in each other's place, and written in their own."""
    tokens, slots = index.plan.token_of_slot, index.plan.slot_of_token
    two = slots[[0, -1]]
    tokens = tokens.clone()
    tokens[two] = tokens[two.flip(0)]
    return change_plan(index, token_of_slot=tokens)


def lose_a_gradient(index: GroupIndex) -> GroupIndex:
    """The backward gathers from the slot beside the right one."""
    rows = index.rows(1)
    index._rows[1] = rows._replace(slot_of_qkv=rows.slot_of_qkv.roll(1))
    return index


def shift_the_bias(index: GroupIndex) -> GroupIndex:
    """Every pair of a window reads the next entry of the table."""
    pair = index.bias_of_pair
    inside = pair < index.plan.num_entries - 1
    index.__dict__['bias_of_pair'] = pair + inside
    return index


MUTATIONS = {
    swap_rows_and_columns: BACKENDS[1:],
    swap_two_positions: BACKENDS[1:],
    join_windows: BACKENDS[1:],
    attend_to_padding: BACKENDS[1:],
    swap_two_tokens: BACKENDS[1:],
    # The fused kernel has neither of these indices.
    lose_a_gradient: BACKENDS[1:3],
    shift_the_bias: BACKENDS[1:3],
}


@pytest.mark.parametrize(
    'mutation, backend', [(mutation, name)
                          for mutation, names in MUTATIONS.items()
                          for name in names],
    ids=lambda value: getattr(value, '__name__', value))
def test_the_comparison_sees_a_mutation(interpreter, mutation, backend):
    case = Case(num_images=1, grid=(1, 4), heads=1, d=16, backend=backend)
    plan, _, _ = make_plan(case)
    window = plan.window_of_slot[-1]
    assert plan.num_groups == 2 and len(window.unique()) > 2
    assert window[-1] == -1
    errors = interpreter(errors_of, case, mutation)
    assert max(errors.values()) > 0.1
    assert (errors['out'] > 0.01) is (mutation is not lose_a_gradient)


class TestChoice:
    """Which backend a name stands for."""
    index = GroupIndex.from_plan(make_plan(Case())[0], 2, CPU)
    cpu = torch.zeros(1, 4, 96)
    gpu = SimpleNamespace(
        is_cuda=True,
        dtype=torch.bfloat16,
        shape=cpu.shape,
        device=torch.device('cuda', 0))

    @pytest.mark.parametrize('name, on_cpu, on_gpu', [
        ('eager', 'eager', 'eager'),
        ('sdpa', 'sdpa', 'sdpa'),
        ('auto', 'eager', 'sdpa'),
    ])
    def test_names(self, name, on_cpu, on_gpu):
        for dropout in (0., 0.5) if name != 'auto' else (0., ):
            assert choose_backend(name, self.cpu, self.index,
                                  dropout) == on_cpu
            assert choose_backend(name, self.gpu, self.index,
                                  dropout) == on_gpu

    @pytest.mark.parametrize('name', ['', 'flash', 'Eager', None])
    def test_unknown_names(self, name):
        with pytest.raises(ValueError, match=f"expected.*'sdpa'.*{name!r}"):
            choose_backend(name, self.cpu, self.index, 0.)
        with pytest.raises(ValueError, match=f"attn_backend.*{name!r}"):
            GreenMIMSwinTransformer(attn_backend=name)

    @pytest.mark.parametrize('qkv, dropout, auto, reason', [
        (cpu, 0., 'eager', 'needs a GPU, got tensors on cpu'),
        (cpu.to('meta'), 0., 'eager', 'needs a GPU, got tensors on meta'),
        (gpu, 0.1, 'sdpa', 'dropout'),
        (SimpleNamespace(**{
            **vars(gpu), 'dtype': torch.float64
        }), 0., 'sdpa', 'float64'),
    ])
    def test_fused_falls_back_with_a_warning(self, qkv, dropout, auto, reason):
        with pytest.warns(UserWarning, match=f"fused.*{reason}.*{auto}"):
            assert choose_backend('fused', qkv, self.index, dropout) == auto

    def test_fused_without_triton(self, monkeypatch):
        # The package's attribute of this name is the function.
        module = sys.modules[group_attention.__module__]
        monkeypatch.setattr(module, 'find_spec', lambda name: None)
        with pytest.warns(UserWarning, match='not installed'):
            assert choose_backend('fused', self.gpu, self.index, 0.) == 'sdpa'


def attend(backend: str, dropout: float, dtype: torch.dtype) -> tuple:
    """The result of a small problem, and what it warned of in three calls."""
    plan, tokens, generator = make_plan(Case())
    index = GroupIndex.from_plan(plan, 2, CPU)
    qkv = torch.randn(2, len(tokens), 3 * 2 * 16, generator=generator)
    table = torch.randn(13**2, 2, generator=generator)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('default')
        for _ in range(3):
            torch.manual_seed(0)
            out = group_attention(
                qkv.to(dtype), index, table.to(dtype), 0.2, dropout, backend)
    return out.numpy(), [str(warning.message) for warning in caught]


@pytest.mark.parametrize('interpreted, dropout, dtype', [
    (False, 0., torch.float32),
    (True, 0.5, torch.float32),
    (True, 0., torch.float64),
])
def test_a_fallback_warns_once_and_is_the_eager_result(interpreter,
                                                       interpreted, dropout,
                                                       dtype):
    call = interpreter if interpreted else lambda f, *args: f(*args)
    out, messages = call(attend, 'fused', dropout, dtype)
    assert len(messages) == 1 and "using 'eager'" in messages[0]
    expected, messages = call(attend, 'eager', dropout, dtype)
    assert not messages and (out == expected).all()


@pytest.mark.parametrize('backend', ['eager', 'sdpa', 'auto'])
def test_autocast(backend):
    """Inputs in fp32 under autocast, and what the projection hands over."""
    plan, tokens, generator = make_plan(Case())
    index = GroupIndex.from_plan(plan, 2, CPU)
    qkv = torch.randn(2, len(tokens), 96, generator=generator)
    table = torch.randn(13**2, 2, generator=generator)
    exact = attention_by_loops(qkv.double(), tokens, table.double(), 7, 2, .25)
    grads = []
    for x in (qkv, qkv.bfloat16()):
        x, bias = x.requires_grad_(), table.clone().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16):
            out = group_attention(x, index, bias, .25, backend=backend)
        assert out.dtype == torch.bfloat16
        assert (out.double() - exact).abs().max() <= 0.03 * exact.abs().max()
        grads.append(
            torch.autograd.grad(out.float().square().sum(), (x, bias)))
    (grad, bias_grad), (half_grad, half_bias_grad) = grads
    assert grad.dtype == bias_grad.dtype == half_bias_grad.dtype
    assert half_grad.dtype == torch.bfloat16
    for first, second in ((grad, half_grad), (bias_grad, half_bias_grad)):
        assert first.isfinite().all()
        assert (first - second).abs().max() <= 0.05 * first.abs().max()


MICRO = dict(
    arch=dict(embed_dims=16, depths=[2, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    window_size=4,
    drop_path_rate=0.)
MASK = torch.tensor([[[True, False], [False, True]]])


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('with_cp', [False, True])
def test_the_backbone_passes_its_backend_on(monkeypatch, backend, with_cp):
    calls = []

    def record(qkv, index, table, scale, dropout, backend):
        calls.append(backend)
        return group_attention(qkv, index, table, scale)

    monkeypatch.setattr(windows, 'group_attention', record)
    kwargs = {} if backend == 'auto' else dict(attn_backend=backend)
    model = GreenMIMSwinTransformer(**MICRO, with_cp=with_cp, **kwargs)
    model(torch.randn(1, 3, 64, 64), MASK).sum().backward()
    # checkpointing runs every block but the first, whose input has no
    # gradient, once more
    assert calls == [backend] * len(calls)
    assert len(calls) == 5 * (1 + with_cp)


def latent_and_grads(backend: str, dtype: torch.dtype) -> List[np.ndarray]:
    torch.manual_seed(0)
    model = GreenMIMSwinTransformer(**MICRO, attn_backend=backend)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    latent = model.to(dtype)(torch.randn(1, 3, 64, 64).to(dtype), MASK)
    latent.square().sum().backward()
    grads = [parameter.grad for parameter in model.parameters()]
    return [x.detach().numpy() for x in (latent, *grads)]


def test_the_backbone_agrees_for_all_backends(interpreter):
    exact = latent_and_grads('eager', torch.float64)

    def errors(backend: str) -> List[float]:
        result = interpreter(latent_and_grads, backend, torch.float32)
        return [
            abs(x - target).max() / abs(target).max()
            for x, target in zip(result, exact, strict=True)
        ]

    limits = [max(1e-5, 4 * error) for error in errors('eager')]
    assert max(limits) < 1e-3
    for backend in ('sdpa', 'fused'):
        assert all(map(operator.le, errors(backend), limits)), backend


@pytest.mark.parametrize(
    'case', [Case(num_images=3), Case(num_masks=2)], ids=['shared', 'image'])
def test_more_matrices_than_a_grid_has_blocks(case, monkeypatch):
    """They are computed in several calls, with the same results."""
    calls = []
    attend = group_attention_module.F.scaled_dot_product_attention

    def record(*args, **kwargs):
        calls.append(args[0].shape[1])
        return attend(*args, **kwargs)

    monkeypatch.setattr(group_attention_module, 'MAX_BLOCKS', 3)
    monkeypatch.setattr(group_attention_module.F,
                        'scaled_dot_product_attention', record)
    check(replace(case, backend='sdpa'))
    assert max(calls) == 3 and len(calls) > 1


def test_kernels_of_a_gpu():
    """The memory-efficient one, or none of the fused ones."""
    enabled = (torch.backends.cuda.cudnn_sdp_enabled,
               torch.backends.cuda.flash_sdp_enabled,
               torch.backends.cuda.mem_efficient_sdp_enabled,
               torch.backends.cuda.math_sdp_enabled)
    before = [ask() for ask in enabled]
    with group_attention_module._kernels(True):
        assert [ask() for ask in enabled] == [False, False, True, True]
    assert [ask() for ask in enabled] == before
    with group_attention_module._kernels(False):
        assert [ask() for ask in enabled] == before


@pytest.mark.parametrize('num_masks', [1, 3])
def test_pairs_without_a_bias_have_many_entries(num_masks):
    """Their gradients are not all added to one address."""
    plan, _, _ = make_plan(Case(num_masks=num_masks))
    index = GroupIndex.from_plan(plan, 2, torch.device('cpu'))
    G, g = plan.window_of_slot.shape
    counts = index.bias_of_pair.bincount(minlength=plan.num_entries + 2 * g)
    assert counts.sum() == G * g * g
    assert len(counts) == plan.num_entries + 2 * g
    without = counts[plan.num_entries:]
    assert without.sum() > g * g and without.max() <= G * g
