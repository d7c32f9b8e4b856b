# Copyright (c) greenmim authors. All rights reserved.
# Kernels take pointers and scalars of the compiler, which have no types here.
# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs
"""Group window attention as one fused kernel for GPUs.

It computes what :mod:`.group_attention` defines. Queries, keys and values are
read from the tokens in their own order, by the slots' indices, and the output
is written back there, so neither gathered copies nor the logits, the bias or
the weights of a group ever reach memory. The backward pass recomputes
the weights from the saved log-sum-exp.

One program handles one tile of a group's queries (or keys) for one sequence
and head. The letters are defined in :mod:`greenmim.ops`.
"""
from typing import Any, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .grouping import GroupPlan

# Gradients of the bias table are added atomically to this many copies, so
# that programs seldom wait for each other.
TABLE_COPIES = 64


@triton.jit
def _slots(token, window, position, group, start, g, BLOCK: tl.constexpr):
    """Token, window and position of a tile of slots; window -1 is padding."""
    i = start + tl.arange(0, BLOCK)
    slot = group * g + i
    inside = i < g
    return (slot, tl.load(token + slot, mask=inside, other=0),
            tl.load(window + slot, mask=inside,
                    other=-1), tl.load(position + slot, mask=inside, other=0))


@triton.jit
def _rows(part, parts, seq, head, token, window, N, h, d,
          BLOCK_D: tl.constexpr):
    """Offsets and mask of the tokens' rows in a tensor (S, N, parts, h, d)."""
    channel = tl.arange(0, BLOCK_D)
    row = ((seq.to(tl.int64) * N + token) * parts + part) * h + head
    mask = (window >= 0)[:, None] & (channel < d)[None, :]
    return row[:, None] * d + channel[None, :], mask


@triton.jit
def _load(qkv, part, seq, head, token, window, N, h, d, BLOCK_D: tl.constexpr):
    """Queries (part 0), keys (1) or values (2) of a tile; padding is 0."""
    rows, mask = _rows(part, 3, seq, head, token, window, N, h, d, BLOCK_D)
    return tl.load(qkv + rows, mask=mask, other=0.)


@triton.jit
def _load_saved(lse, delta, grad_out, seq, head, slot, token, window, N, h, P,
                d, BLOCK_D: tl.constexpr):
    """What the backward pass needs of a tile of queries."""
    rows, mask = _rows(0, 1, seq, head, token, window, N, h, d, BLOCK_D)
    grad = tl.load(grad_out + rows, mask=mask, other=0.)
    inside = window >= 0
    sequence = seq.to(tl.int64)
    lse_m = tl.load(lse + (sequence * h + head) * P + slot, inside, 0.)
    delta_m = tl.load(delta + (sequence * N + token) * h + head, inside, 0.)
    return grad, lse_m, delta_m


@triton.jit
def _logits(q, k, table, window_m, window_n, position_m, position_n, head,
            scale, middle, h, PRECISION: tl.constexpr):
    """Logits of a tile, -inf between windows, with the table's entries."""
    same = (window_m[:, None] == window_n[None, :]) & (window_m >= 0)[:, None]
    entry = (position_m[:, None] - position_n[None, :] + middle) * h + head
    bias = tl.load(table + entry, mask=same, other=0.).to(tl.float32)
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + bias
    return tl.where(same, logits, float('-inf')), same, entry


@triton.jit
def _forward(qkv, table, token, window, position, out, lse, N, h, P, g, scale,
             middle, d, TILES: tl.constexpr, BLOCK: tl.constexpr,
             BLOCK_D: tl.constexpr, PRECISION: tl.constexpr):
    group, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES
    seq, head = tl.program_id(1) // h, tl.program_id(1) % h
    slot_m, token_m, window_m, position_m = _slots(token, window, position,
                                                   group, tile * BLOCK, g,
                                                   BLOCK)
    q = _load(qkv, 0, seq, head, token_m, window_m, N, h, d, BLOCK_D)

    best = tl.full((BLOCK, ), float('-inf'), tl.float32)
    total = tl.zeros((BLOCK, ), tl.float32)
    mean = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for other in range(TILES):
        _, token_n, window_n, position_n = _slots(token, window, position,
                                                  group, other * BLOCK, g,
                                                  BLOCK)
        k = _load(qkv, 1, seq, head, token_n, window_n, N, h, d, BLOCK_D)
        v = _load(qkv, 2, seq, head, token_n, window_n, N, h, d, BLOCK_D)
        logits, _, _ = _logits(q, k, table, window_m, window_n, position_m,
                               position_n, head, scale, middle, h, PRECISION)
        new = tl.maximum(best, tl.max(logits, 1))
        # A row whose window is not in this tile has no finite logit yet.
        finite = tl.where(new == float('-inf'), 0., new)
        weights = tl.exp(logits - finite[:, None])
        decay = tl.exp(best - finite)
        total = total * decay + tl.sum(weights, 1)
        mean = mean * decay[:, None] + tl.dot(
            weights.to(v.dtype), v, input_precision=PRECISION)
        best = new
    inside = window_m >= 0
    total = tl.where(inside, total, 1.)
    best = tl.where(inside, best, 0.)
    rows, mask = _rows(0, 1, seq, head, token_m, window_m, N, h, d, BLOCK_D)
    mean = mean / total[:, None]
    tl.store(out + rows, mean.to(out.dtype.element_ty), mask)
    lse_m = lse + (seq.to(tl.int64) * h + head) * P + slot_m
    tl.store(lse_m, best + tl.log(total), inside)


@triton.jit
def _backward_q(qkv, table, token, window, position, lse, delta, grad_out,
                grad_qkv, grad_table, N, h, P, g, R, scale, middle, d, copies,
                TILES: tl.constexpr, BLOCK: tl.constexpr,
                BLOCK_D: tl.constexpr, PRECISION: tl.constexpr):
    """Gradients of the queries and the bias table."""
    group, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES
    seq, head = tl.program_id(1) // h, tl.program_id(1) % h
    slot_m, token_m, window_m, position_m = _slots(token, window, position,
                                                   group, tile * BLOCK, g,
                                                   BLOCK)
    q = _load(qkv, 0, seq, head, token_m, window_m, N, h, d, BLOCK_D)
    grad_o, lse_m, delta_m = _load_saved(lse, delta, grad_out, seq, head,
                                         slot_m, token_m, window_m, N, h, P, d,
                                         BLOCK_D)
    copy = (tl.program_id(0) + tl.program_id(1)) % copies
    grad_q = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for other in range(TILES):
        _, token_n, window_n, position_n = _slots(token, window, position,
                                                  group, other * BLOCK, g,
                                                  BLOCK)
        k = _load(qkv, 1, seq, head, token_n, window_n, N, h, d, BLOCK_D)
        v = _load(qkv, 2, seq, head, token_n, window_n, N, h, d, BLOCK_D)
        logits, same, entry = _logits(q, k, table, window_m, window_n,
                                      position_m, position_n, head, scale,
                                      middle, h, PRECISION)
        weights = tl.exp(logits - lse_m[:, None])
        grad_w = tl.dot(grad_o, tl.trans(v), input_precision=PRECISION)
        grad_l = weights * (grad_w - delta_m[:, None])
        tl.atomic_add(grad_table + copy * R * h + entry, grad_l, mask=same)
        grad_q += tl.dot(grad_l.to(k.dtype), k, input_precision=PRECISION)
    rows, mask = _rows(0, 3, seq, head, token_m, window_m, N, h, d, BLOCK_D)
    grad_q = grad_q * scale
    tl.store(grad_qkv + rows, grad_q.to(grad_qkv.dtype.element_ty), mask)


@triton.jit
def _backward_kv(qkv, table, token, window, position, lse, delta, grad_out,
                 grad_qkv, N, h, P, g, scale, middle, d, TILES: tl.constexpr,
                 BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
                 PRECISION: tl.constexpr):
    """Gradients of the keys and values."""
    group, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES
    seq, head = tl.program_id(1) // h, tl.program_id(1) % h
    _, token_n, window_n, position_n = _slots(token, window, position, group,
                                              tile * BLOCK, g, BLOCK)
    k = _load(qkv, 1, seq, head, token_n, window_n, N, h, d, BLOCK_D)
    v = _load(qkv, 2, seq, head, token_n, window_n, N, h, d, BLOCK_D)
    grad_k = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    grad_v = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for other in range(TILES):
        slot_m, token_m, window_m, position_m = _slots(token, window, position,
                                                       group, other * BLOCK, g,
                                                       BLOCK)
        q = _load(qkv, 0, seq, head, token_m, window_m, N, h, d, BLOCK_D)
        grad_o, lse_m, delta_m = _load_saved(lse, delta, grad_out, seq, head,
                                             slot_m, token_m, window_m, N, h,
                                             P, d, BLOCK_D)
        logits, _, _ = _logits(q, k, table, window_m, window_n, position_m,
                               position_n, head, scale, middle, h, PRECISION)
        weights = tl.exp(logits - lse_m[:, None])
        grad_w = tl.dot(grad_o, tl.trans(v), input_precision=PRECISION)
        grad_l = weights * (grad_w - delta_m[:, None])
        grad_v += tl.dot(
            tl.trans(weights.to(grad_o.dtype)),
            grad_o,
            input_precision=PRECISION)
        grad_k += tl.dot(
            tl.trans(grad_l.to(q.dtype)), q, input_precision=PRECISION)
    dtype = grad_qkv.dtype.element_ty
    rows, mask = _rows(1, 3, seq, head, token_n, window_n, N, h, d, BLOCK_D)
    tl.store(grad_qkv + rows, (grad_k * scale).to(dtype), mask)
    rows, mask = _rows(2, 3, seq, head, token_n, window_n, N, h, d, BLOCK_D)
    tl.store(grad_qkv + rows, grad_v.to(dtype), mask)


def _launch(plan: GroupPlan, qkv: Tensor, num_heads: int) -> Tuple:
    """Grid, sizes and tile constants of the kernels.

    The number of tiles is a constant of the compiled kernel, the group size
    is not: it changes from mask to mask.
    """
    d = qkv.shape[2] // (3 * num_heads)
    g = plan.group_size
    block = min(64, max(16, triton.next_power_of_2(g)))
    num_tiles = triton.cdiv(g, block)
    grid = (plan.num_groups * num_tiles, len(qkv) * num_heads)
    tiles = dict(
        TILES=num_tiles,
        BLOCK=block,
        BLOCK_D=max(16, triton.next_power_of_2(d)),
        PRECISION='ieee' if qkv.dtype == torch.float32 else 'tf32')
    return grid, d, g, tiles


class FusedGroupAttention(torch.autograd.Function):
    """``apply(qkv_SNC, bias_table, plan, num_heads, scale)``.

    The plan is on the device. qkv in fp32, fp16 or bf16; see
    :func:`.group_attention.group_attention` for shapes.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, table: Tensor, plan: GroupPlan,
                num_heads: int, scale: float) -> Tensor:
        qkv, table = qkv.contiguous(), table.contiguous()
        S, N, _ = qkv.shape
        grid, d, g, tiles = _launch(plan, qkv, num_heads)
        P = len(plan.token_of_slot)
        out = qkv.new_empty(S, N, num_heads * d)
        lse = qkv.new_empty(S, num_heads, P, dtype=torch.float32)
        _forward[grid](qkv, table, plan.token_of_slot, plan.window_of_slot,
                       plan.position_of_slot, out, lse, N, num_heads, P, g,
                       scale, plan.middle, d, **tiles)
        ctx.save_for_backward(qkv, table, out, lse)
        ctx.plan, ctx.num_heads, ctx.scale = plan, num_heads, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Tuple:
        qkv, table, out, lse = ctx.saved_tensors
        plan, num_heads, scale = ctx.plan, ctx.num_heads, ctx.scale
        S, N, _ = qkv.shape
        grid, d, g, tiles = _launch(plan, qkv, num_heads)
        P, R = len(plan.token_of_slot), len(table)
        grad_out = grad_out.contiguous()
        delta = (grad_out.float() * out.float()).view(S, N, num_heads, d)
        delta = delta.sum(-1)
        grad_qkv = torch.empty_like(qkv)
        grad_table = torch.zeros(
            TABLE_COPIES, *table.shape, dtype=torch.float32, device=qkv.device)
        slots = (plan.token_of_slot, plan.window_of_slot,
                 plan.position_of_slot)
        _backward_q[grid](qkv, table, *slots, lse, delta, grad_out, grad_qkv,
                          grad_table, N, num_heads, P, g, R, scale,
                          plan.middle, d, TABLE_COPIES, **tiles)
        _backward_kv[grid](qkv, table, *slots, lse, delta, grad_out, grad_qkv,
                           N, num_heads, P, g, scale, plan.middle, d, **tiles)
        return grad_qkv, grad_table.sum(0).to(table.dtype), None, None, None
