# Copyright (c) greenmim authors. All rights reserved.
# Kernels take pointers and scalars of the compiler, which have no types here.
# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs
"""Group window attention as fused kernels for GPUs.

They compute what :mod:`.group_attention` defines. Queries, keys and values are
read from the tokens in their own order, by the slots' indices, and the output
is written back there, so neither gathered copies nor the logits, the bias or
the weights of a group ever reach memory. The backward pass recomputes
the weights from the saved log-sum-exp.

One program handles one tile of a group's queries (or keys) for one head and up
to ``MAX_IMAGES`` sequences, which share the indices. Where a group is a single
tile, its bias is read once for all of them. The gradient of the bias table is
a kernel of its own, whose program sums one pair of tiles over its sequences
before it adds to the table. The letters are defined in :mod:`greenmim.ops`.
"""
from functools import lru_cache
from typing import Any, Dict, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver

from .grouping import GroupPlan

# Gradients of the bias table are added atomically to this many copies, so
# that programs seldom wait for each other.
TABLE_COPIES = 64

# Sequences of a program, if there are enough programs to fill a GPU. Both
# numbers are estimates.
MAX_IMAGES = 16
MIN_PROGRAMS = 2048

# Channels of a head up to which the kernels keep (almost) everything in
# registers; beyond, they would wait for memory.
MAX_CHANNELS = {torch.float32: 32, torch.float16: 64, torch.bfloat16: 64}

# The values of these change from mask to mask. Kernels compiled for their
# values would be compiled again in the middle of a run.
_CHANGING = ('token', 'window', 'position', 'S', 'N', 'h', 'P', 'g', 'R',
             'images', 'copies', 'middle')


def _jit(function):
    names = function.__code__.co_varnames[:function.__code__.co_argcount]
    changing = [name for name in names if name in _CHANGING]
    return triton.jit(function, do_not_specialize=changing)


@triton.jit
def _slots(token, window, position, group, tile, g, BLOCK: tl.constexpr):
    """Slot, token, window and position of a tile; window -1 is padding."""
    i = tile * BLOCK + tl.arange(0, BLOCK)
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
def _load_grad(grad_out, lse, delta, seq, head, slot, token, window, N, h, P,
               d, BLOCK_D: tl.constexpr):
    """What the backward pass needs of a tile of queries."""
    rows, mask = _rows(0, 1, seq, head, token, window, N, h, d, BLOCK_D)
    grad = tl.load(grad_out + rows, mask=mask, other=0.)
    saved = (seq.to(tl.int64) * h + head) * P + slot
    inside = window >= 0
    return (grad, tl.load(lse + saved, mask=inside, other=0.),
            tl.load(delta + saved, mask=inside, other=0.))


@triton.jit
def _pairs(table, window_m, window_n, position_m, position_n, head, middle, h):
    """The pairs of a tile in one window, their entries and their biases."""
    same = (window_m[:, None] == window_n[None, :]) & (window_m >= 0)[:, None]
    entry = (position_m[:, None] - position_n[None, :] + middle) * h + head
    bias = tl.load(table + entry, mask=same, other=0.).to(tl.float32)
    return same, entry, bias


@triton.jit
def _logits(q, k, same, bias, scale, PRECISION: tl.constexpr):
    """Logits of a tile, -inf between windows."""
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + bias
    return tl.where(same, logits, float('-inf'))


@_jit
def _forward(qkv, table, token, window, position, out, lse, S, N, h, P, g,
             images, scale, middle, d, TILES: tl.constexpr,
             BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
             PRECISION: tl.constexpr):
    group, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES
    head, seq = tl.program_id(1), tl.program_id(2) * images
    last = tl.minimum(seq + images, S)
    slot_m, token_m, window_m, position_m = _slots(token, window, position,
                                                   group, tile, g, BLOCK)
    if TILES == 1:
        token_n, window_n = token_m, window_m
        same, _, bias = _pairs(table, window_m, window_n, position_m,
                               position_m, head, middle, h)
    while seq < last:
        q = _load(qkv, 0, seq, head, token_m, window_m, N, h, d, BLOCK_D)
        best = tl.full((BLOCK, ), float('-inf'), tl.float32)
        total = tl.zeros((BLOCK, ), tl.float32)
        mean = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        for other in range(TILES):
            if TILES > 1:
                _, token_n, window_n, position_n = _slots(
                    token, window, position, group, other, g, BLOCK)
                same, _, bias = _pairs(table, window_m, window_n, position_m,
                                       position_n, head, middle, h)
            k = _load(qkv, 1, seq, head, token_n, window_n, N, h, d, BLOCK_D)
            v = _load(qkv, 2, seq, head, token_n, window_n, N, h, d, BLOCK_D)
            logits = _logits(q, k, same, bias, scale, PRECISION)
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
        rows, mask = _rows(0, 1, seq, head, token_m, window_m, N, h, d,
                           BLOCK_D)
        mean = mean / total[:, None]
        tl.store(out + rows, mean.to(out.dtype.element_ty), mask)
        lse_m = lse + (seq.to(tl.int64) * h + head) * P + slot_m
        tl.store(lse_m, best + tl.log(total), inside)
        seq += 1


@_jit
def _backward_q(qkv, table, token, window, position, out, lse, grad_out,
                grad_qkv, delta, S, N, h, P, g, images, scale, middle, d,
                TILES: tl.constexpr, BLOCK: tl.constexpr,
                BLOCK_D: tl.constexpr, PRECISION: tl.constexpr):
    """Gradients of the queries; delta, which the other kernels read."""
    group, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES
    head, seq = tl.program_id(1), tl.program_id(2) * images
    last = tl.minimum(seq + images, S)
    slot_m, token_m, window_m, position_m = _slots(token, window, position,
                                                   group, tile, g, BLOCK)
    if TILES == 1:
        token_n, window_n = token_m, window_m
        same, _, bias = _pairs(table, window_m, window_n, position_m,
                               position_m, head, middle, h)
    while seq < last:
        q = _load(qkv, 0, seq, head, token_m, window_m, N, h, d, BLOCK_D)
        rows, mask = _rows(0, 1, seq, head, token_m, window_m, N, h, d,
                           BLOCK_D)
        grad_o = tl.load(grad_out + rows, mask=mask, other=0.)
        out_m = tl.load(out + rows, mask=mask, other=0.)
        delta_m = tl.sum(grad_o.to(tl.float32) * out_m.to(tl.float32), 1)
        saved = (seq.to(tl.int64) * h + head) * P + slot_m
        tl.store(delta + saved, delta_m, window_m >= 0)
        lse_m = tl.load(lse + saved, mask=window_m >= 0, other=0.)
        grad_q = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        for other in range(TILES):
            if TILES > 1:
                _, token_n, window_n, position_n = _slots(
                    token, window, position, group, other, g, BLOCK)
                same, _, bias = _pairs(table, window_m, window_n, position_m,
                                       position_n, head, middle, h)
            k = _load(qkv, 1, seq, head, token_n, window_n, N, h, d, BLOCK_D)
            v = _load(qkv, 2, seq, head, token_n, window_n, N, h, d, BLOCK_D)
            logits = _logits(q, k, same, bias, scale, PRECISION)
            weights = tl.exp(logits - lse_m[:, None])
            grad_w = tl.dot(grad_o, tl.trans(v), input_precision=PRECISION)
            grad_l = weights * (grad_w - delta_m[:, None])
            grad_q += tl.dot(grad_l.to(k.dtype), k, input_precision=PRECISION)
        rows, mask = _rows(0, 3, seq, head, token_m, window_m, N, h, d,
                           BLOCK_D)
        grad_q = grad_q * scale
        tl.store(grad_qkv + rows, grad_q.to(grad_qkv.dtype.element_ty), mask)
        seq += 1


@_jit
def _backward_kv(qkv, table, token, window, position, lse, delta, grad_out,
                 grad_qkv, S, N, h, P, g, images, scale, middle, d,
                 TILES: tl.constexpr, BLOCK: tl.constexpr,
                 BLOCK_D: tl.constexpr, PRECISION: tl.constexpr):
    """Gradients of the keys and values."""
    group, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES
    head, seq = tl.program_id(1), tl.program_id(2) * images
    last = tl.minimum(seq + images, S)
    slot_n, token_n, window_n, position_n = _slots(token, window, position,
                                                   group, tile, g, BLOCK)
    if TILES == 1:
        slot_m, token_m, window_m = slot_n, token_n, window_n
        same, _, bias = _pairs(table, window_m, window_n, position_n,
                               position_n, head, middle, h)
    while seq < last:
        k = _load(qkv, 1, seq, head, token_n, window_n, N, h, d, BLOCK_D)
        v = _load(qkv, 2, seq, head, token_n, window_n, N, h, d, BLOCK_D)
        grad_k = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        grad_v = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        for other in range(TILES):
            if TILES > 1:
                slot_m, token_m, window_m, position_m = _slots(
                    token, window, position, group, other, g, BLOCK)
                same, _, bias = _pairs(table, window_m, window_n, position_m,
                                       position_n, head, middle, h)
            q = _load(qkv, 0, seq, head, token_m, window_m, N, h, d, BLOCK_D)
            grad_o, lse_m, delta_m = _load_grad(grad_out, lse, delta, seq,
                                                head, slot_m, token_m,
                                                window_m, N, h, P, d, BLOCK_D)
            logits = _logits(q, k, same, bias, scale, PRECISION)
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
        rows, mask = _rows(1, 3, seq, head, token_n, window_n, N, h, d,
                           BLOCK_D)
        tl.store(grad_qkv + rows, (grad_k * scale).to(dtype), mask)
        rows, mask = _rows(2, 3, seq, head, token_n, window_n, N, h, d,
                           BLOCK_D)
        tl.store(grad_qkv + rows, grad_v.to(dtype), mask)
        seq += 1


@_jit
def _backward_table(qkv, table, token, window, position, lse, delta, grad_out,
                    grad_table, S, N, h, P, g, R, copies, images, scale,
                    middle, d, TILES: tl.constexpr, BLOCK: tl.constexpr,
                    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr):
    """Gradients of the bias table, one pair of tiles a program."""
    group, pair = (tl.program_id(0) // (TILES * TILES),
                   tl.program_id(0) % (TILES * TILES))
    head, seq = tl.program_id(1), tl.program_id(2) * images
    last = tl.minimum(seq + images, S)
    slot_m, token_m, window_m, position_m = _slots(token, window, position,
                                                   group, pair // TILES, g,
                                                   BLOCK)
    _, token_n, window_n, position_n = _slots(token, window, position, group,
                                              pair % TILES, g, BLOCK)
    same, entry, bias = _pairs(table, window_m, window_n, position_m,
                               position_n, head, middle, h)
    grad_bias = tl.zeros((BLOCK, BLOCK), tl.float32)
    while seq < last:
        q = _load(qkv, 0, seq, head, token_m, window_m, N, h, d, BLOCK_D)
        k = _load(qkv, 1, seq, head, token_n, window_n, N, h, d, BLOCK_D)
        v = _load(qkv, 2, seq, head, token_n, window_n, N, h, d, BLOCK_D)
        grad_o, lse_m, delta_m = _load_grad(grad_out, lse, delta, seq, head,
                                            slot_m, token_m, window_m, N, h, P,
                                            d, BLOCK_D)
        logits = _logits(q, k, same, bias, scale, PRECISION)
        weights = tl.exp(logits - lse_m[:, None])
        grad_w = tl.dot(grad_o, tl.trans(v), input_precision=PRECISION)
        grad_bias += weights * (grad_w - delta_m[:, None])
        seq += 1
    copy = (tl.program_id(0) + tl.program_id(2)) % copies
    # Nothing is read back, so the sums need no order.
    tl.atomic_add(
        grad_table + copy * R * h + entry, grad_bias, mask=same, sem='relaxed')


KERNELS = (_forward, _backward_q, _backward_kv, _backward_table)


def _constants(dtype: torch.dtype, d: int, group_size: int) -> Dict[str, Any]:
    """What a kernel is compiled for, besides the types of its arguments.

    The number of tiles is a constant, the group size is not: it changes from
    mask to mask.
    """
    is_float = dtype == torch.float32
    side = min(32 if is_float else 64,
               max(16, triton.next_power_of_2(group_size)))
    block_d = max(16, triton.next_power_of_2(d))
    return dict(
        TILES=triton.cdiv(group_size, side),
        BLOCK=side,
        BLOCK_D=block_d,
        # Twice the threads have the registers that large tiles need.
        num_warps=8 if side * block_d >= 64 * 64 else 4,
        PRECISION='ieee' if is_float else 'tf32',
        # Loading tiles ahead would take the registers that are needed.
        num_stages=1)


def compile_kernel(kernel: Any, dtype: torch.dtype, d: int,
                   group_size: int) -> Any:
    """Compile a kernel for the current device, without running it.

    Args:
        kernel (triton.JITFunction): One of ``KERNELS``.
        dtype (torch.dtype): That of queries, keys and values.
        d (int): Channels of a head.
        group_size (int): g.

    Returns:
        triton.compiler.CompiledKernel: It tells the shared memory that is
        needed, in bytes, and the machine code.
    """
    constants = _constants(dtype, d, group_size)
    tokens = dict.fromkeys(('qkv', 'out', 'grad_out', 'grad_qkv'), dtype)
    slots = dict(token=torch.int64, window=torch.int32, position=torch.int32)
    saved = dict.fromkeys(('table', 'lse', 'delta', 'grad_table'),
                          torch.float32)
    types: Dict[str, Any] = dict(**tokens, **slots, **saved, scale=1., d=d)
    arguments = [
        types.get(name, 0) for name in kernel.arg_names
        if name not in constants
    ]
    return kernel.warmup(*arguments, grid=(1, ), **constants)


@lru_cache(maxsize=None)
def why_not(dtype: torch.dtype, d: int, group_size: int) -> str:
    """Why the current device cannot run the kernels well; empty if it can.

    Args:
        dtype (torch.dtype): That of queries, keys and values.
        d (int): Channels of a head.
        group_size (int): g.
    """
    if d > MAX_CHANNELS[dtype]:
        return (f'keeps heads of at most {MAX_CHANNELS[dtype]} channels in '
                f'registers in {dtype}, got {d}')
    device = driver.active.get_current_device()
    limit = driver.active.utils.get_device_properties(device)['max_shared_mem']
    needed = max(
        compile_kernel(kernel, dtype, d, group_size).metadata.shared
        for kernel in KERNELS)
    if needed > limit:
        return ('needs more shared memory than the device has '
                f'({limit} bytes)')
    return ''


class FusedGroupAttention(torch.autograd.Function):
    """``apply(qkv_SNC, bias_table, plan, num_heads, scale)``.

    The plan is on the device. qkv in fp32, fp16 or bf16; see
    :func:`.group_attention.group_attention` for shapes.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, table: Tensor, plan: GroupPlan,
                num_heads: int, scale: float) -> Tensor:
        qkv, table = qkv.contiguous(), table.contiguous()
        S, N, C = qkv.shape
        d, g, P = C // (3 * num_heads), plan.group_size, len(
            plan.token_of_slot)
        constants = _constants(qkv.dtype, d, g)
        programs = plan.num_groups * constants['TILES'] * num_heads * S
        images = min(S, MAX_IMAGES, max(1, programs // MIN_PROGRAMS))
        out = qkv.new_empty(S, N, num_heads * d)
        lse = qkv.new_empty(S, num_heads, P, dtype=torch.float32)
        ctx.save_for_backward(qkv, table, out, lse)
        ctx.slots = (plan.token_of_slot, plan.window_of_slot,
                     plan.position_of_slot)
        ctx.grid = (plan.num_groups * constants['TILES'], num_heads,
                    triton.cdiv(S, images))
        ctx.sizes = S, N, num_heads, P, g
        ctx.images, ctx.constants = images, constants
        ctx.rest = scale, plan.middle, d
        _forward[ctx.grid](qkv, table, *ctx.slots, out, lse, *ctx.sizes,
                           images, *ctx.rest, **constants)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Tuple:
        qkv, table, out, lse = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        grad_qkv, delta = torch.empty_like(qkv), torch.empty_like(lse)
        grad_table = None
        inputs = qkv, table, *ctx.slots
        scalars = *ctx.sizes, ctx.images, *ctx.rest
        _backward_q[ctx.grid](*inputs, out, lse, grad_out, grad_qkv, delta,
                              *scalars, **ctx.constants)
        _backward_kv[ctx.grid](*inputs, lse, delta, grad_out, grad_qkv,
                               *scalars, **ctx.constants)
        if ctx.needs_input_grad[1]:
            copies = table.new_zeros(
                TABLE_COPIES, *table.shape, dtype=torch.float32)
            tiles, heads, splits = ctx.grid
            grid = tiles * ctx.constants['TILES'], heads, splits
            _backward_table[grid](*inputs, lse,
                                  delta, grad_out, copies, *ctx.sizes,
                                  len(table), TABLE_COPIES, ctx.images,
                                  *ctx.rest, **ctx.constants)
            grad_table = copies.sum(0).to(table.dtype)
        return grad_qkv, grad_table, None, None, None
