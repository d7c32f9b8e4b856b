# Copyright (c) greenmim authors. All rights reserved.
"""Attention in groups against one loop over windows.

``test_attention_backends.py`` does the same for more cases and data types.
"""
import pytest
import torch

from greenmim.models.masking import random_mask
from greenmim.ops import (GroupIndex, GroupPlan, VisibleLayout, Window,
                          group_attention, plan_groups)
from tests.test_ops.test_grouping import tokens_by_loops

CPU = torch.device('cpu')


def attention_by_loops(qkv_SNC, tokens, table, table_size, heads, scale):
    """Softmax attention, one window after another.

    ``tokens`` are (image, window, y, x) of the N tokens of a sequence.
    """
    S, N, _ = qkv_SNC.shape
    d = qkv_SNC.shape[-1] // (3 * heads)
    q, k, v = qkv_SNC.view(S, N, 3, heads, d).unbind(2)
    outs = [[None] * N for _ in range(S)]
    for s in range(S):
        for window in sorted({token[:2] for token in tokens}):
            members = [
                i for i, token in enumerate(tokens) if token[:2] == window
            ]
            rows = torch.tensor([[
                (tokens[i][2] - tokens[j][2] + table_size - 1) *
                (2 * table_size - 1) + tokens[i][3] - tokens[j][3] +
                table_size - 1 for j in members
            ] for i in members])
            for_heads = []
            for h in range(heads):
                logits = q[s, members, h] @ k[s, members, h].T * scale
                logits = logits + table[rows, h]
                for_heads.append(logits.softmax(-1) @ v[s, members, h])
            out = torch.cat(for_heads, dim=-1)
            for row, i in zip(out, members):
                outs[s][i] = row
    return torch.stack([torch.stack(rows) for rows in outs])


CASES = {
    # masks, grid, ratio, side, window, shift, table
    'shared': (1, (3, 4), 0.5, 4, 7, 3, 7),
    'image': (3, (3, 2), 0.5, 4, 7, 3, 7),
    'divides': (1, (2, 2), 0., 4, 4, 2, 4),
    'one-unit': (1, (3, 3), 0.85, 8, 5, 2, 5),
    'one-token': (2, (2, 2), 0.75, 1, 7, 0, 7),
    'shrunk-window': (2, (3, 5), 0.4, 2, 6, 0, 14),
    'window-1': (1, (2, 2), 0., 2, 1, 0, 1),
}


def with_padding(plan, extra):
    """The same plan with ``extra`` more padding slots in every group."""
    G, g = plan.num_groups, plan.group_size
    slot = plan.slot_of_token
    token_of_slot = torch.zeros(G, g + extra, dtype=torch.int64)
    token_of_slot[:, :g] = plan.token_of_slot.view(G, g)
    window = torch.full((G, g + extra), -1, dtype=torch.int32)
    window[:, :g] = plan.window_of_slot
    position = torch.zeros(G, g + extra, dtype=torch.int32)
    position[:, :g] = plan.position_of_slot
    return GroupPlan(plan.table_size, token_of_slot.flatten(),
                     slot // g * (g + extra) + slot % g, window, position)


def make_case(name, num_images=3, heads=2, d=3, extra_padding=0):
    num, grid, ratio, side, window, shift, table_size = CASES[name]
    generator = torch.Generator().manual_seed(0)
    mask = random_mask(num, grid, ratio, generator)
    plan = plan_groups(
        VisibleLayout.from_mask(mask), side, Window(window, shift, table_size))
    plan = with_padding(plan, extra_padding)
    tokens = tokens_by_loops(mask, side, window, shift)
    S = num_images if num == 1 else 1

    def randn(*shape):
        return torch.randn(
            *shape, generator=generator, dtype=torch.float64).requires_grad_()

    qkv = randn(S, len(tokens), 3 * heads * d)
    table = randn((2 * table_size - 1)**2, heads)
    return plan, tokens, qkv, table, S, heads


def relative_error(actual, expected):
    scale = float(expected.detach().abs().max())
    return float((actual - expected).detach().abs().max()) / (scale or 1.)


@pytest.mark.parametrize('backend', ['eager', 'sdpa'])
@pytest.mark.parametrize('extra_padding', [0, 5])
@pytest.mark.parametrize('with_table', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_outputs_and_gradients_equal_loops(case, with_table, extra_padding,
                                           backend):
    """No table is a table of zeros."""
    plan, tokens, qkv, table, S, heads = make_case(
        case, extra_padding=extra_padding)
    index = GroupIndex.from_plan(plan, heads, CPU)
    actual = group_attention(
        qkv, index, table if with_table else None, 0.7, backend=backend)
    expected = attention_by_loops(
        qkv, tokens, table if with_table else torch.zeros_like(table),
        plan.table_size, heads, 0.7)
    assert actual.shape == expected.shape
    weight = torch.randn_like(expected)
    leaves = (qkv, table) if with_table else (qkv, )
    actual_grads = torch.autograd.grad((actual * weight).sum(), leaves)
    grads = torch.autograd.grad((expected * weight).sum(), leaves)
    assert relative_error(actual, expected) <= 1e-12
    for actual_grad, grad in zip(actual_grads, grads):
        assert relative_error(actual_grad, grad) <= 1e-12


@pytest.mark.parametrize('backend', ['eager', 'sdpa'])
@pytest.mark.parametrize('case', ['shared', 'image', 'one-unit'])
def test_windows_and_padding_do_not_leak(case, backend):
    """Logits as large as they come reach no other window and no padding."""
    plan, tokens, qkv, table, S, heads = make_case(case, extra_padding=4)
    index = GroupIndex.from_plan(plan, heads, CPU)
    window = tokens[0][:2]  # token 0 also stands in padding slots
    inside = torch.tensor([token[:2] == window for token in tokens])
    assert inside.any() and not inside.all()
    changed = qkv.detach().clone()
    changed[:, inside] *= 1e4
    before = group_attention(qkv, index, table, 1., backend=backend)
    after = group_attention(changed, index, table, 1., backend=backend)
    assert torch.equal(before[:, ~inside], after[:, ~inside])
    assert not torch.equal(before[:, inside], after[:, inside])
    grad, = torch.autograd.grad(before[:, ~inside].sum(), qkv)
    assert grad[:, inside].eq(0).all()


@pytest.mark.parametrize('backend', ['eager', 'sdpa'])
def test_dropout_of_the_attention_weights(backend):
    plan, _, qkv, table, S, heads = make_case('shared')
    index = GroupIndex.from_plan(plan, heads, CPU)
    exact = group_attention(qkv, index, table, 1.).detach()
    torch.manual_seed(0)
    draws = torch.stack([
        group_attention(qkv, index, table, 1., dropout=0.2,
                        backend=backend).detach() for _ in range(400)
    ])
    assert not torch.equal(draws[0], draws[1])
    # the expectation is kept: within six standard errors everywhere
    error = (draws.mean(0) - exact).abs()
    assert (error <= 6 * draws.std(0) / 20).all()
