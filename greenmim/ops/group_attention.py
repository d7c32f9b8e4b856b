# Copyright (c) greenmim authors. All rights reserved.
"""Group window attention (paper section 3.1).

For the slots i, j of one group, with queries q, keys k, values v, the table
of relative position biases r and the scale ``d**-0.5``::

    logit_ij = scale * q_i . k_j + r[position_i - position_j]
                                       if window_i = window_j, else -inf
    out_i    = sum_j softmax_j(logit_ij) v_j

so tokens attend within their own window only, as in the dense model. Without
a table the biases r are zero.

Padding slots form a window of their own, with bias 0. What they hold reaches
no output, and no gradient from them reaches a token or the bias table.

Three backends compute it: ``eager``, plain operators and the reference;
``sdpa``, PyTorch's ``scaled_dot_product_attention`` with the bias as its mask;
``fused``, a Triton kernel that never writes logits or bias to memory (see
:mod:`._triton_attention`).

S sequences share a plan of N tokens and P = G * g slots: all images and
N = K * T for a shared mask; S = 1 and N = B * K * T for one mask per image.
So S follows from the number of tokens. All letters are defined in
:mod:`greenmim.ops`.
"""
import os
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any, ContextManager, Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .grouping import GroupPlan


class _PermuteRows(torch.autograd.Function):
    """``x[index]`` whose backward is a gather too.

    ``inverse[r]`` is the output row that input row r goes to. An input row
    may occur in more output rows (padding), but only the gradient of the row
    in ``inverse`` reaches it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return _PermuteRows.apply(grad.contiguous(), inverse,
                                  index), None, None


class _Rows(NamedTuple):
    """Indices that move rows of d channels between tokens and slots.

    One gather rearranges the output of the qkv projection to a matrix per
    head and group, and one restores the order of the tokens.
    """
    qkv_of_slot: Tensor  # (3 * S * h * P,), rows of (S, N, 3, h)
    slot_of_qkv: Tensor  # (S * N * 3 * h,), rows of (3, S, h, P)
    token_of_slot: Tensor  # (S * h * P,), rows of (S, N, h)
    slot_of_token: Tensor  # (S * N * h,), rows of (S, h, P)


@dataclass(frozen=True, eq=False)
class GroupIndex:
    """A plan on the device, for h heads.

    Args:
        plan (GroupPlan): The plan, on the device.
        num_heads (int): h.
    """
    plan: GroupPlan
    num_heads: int
    _rows: Dict[int, _Rows] = field(
        default_factory=dict, init=False, repr=False)
    _constants: Dict[torch.dtype, Tensor] = field(
        default_factory=dict, init=False, repr=False)

    @classmethod
    def from_plan(cls, plan: GroupPlan, num_heads: int,
                  device: torch.device) -> 'GroupIndex':
        """Move a plan to the device of the tokens."""
        return cls(plan.to(device), num_heads)

    @property
    def shape(self) -> Tuple[int, int, int]:
        """(h, G, g)."""
        return self.num_heads, self.plan.num_groups, self.plan.group_size

    def rows(self, num_sequences: int) -> _Rows:
        """The rows of S sequences, made at first use.

        The fused backend does not need them.
        """
        if num_sequences not in self._rows:
            self._rows[num_sequences] = self._make_rows(num_sequences)
        return self._rows[num_sequences]

    def _make_rows(self, num_sequences: int) -> _Rows:
        tokens, slots = self.plan.token_of_slot, self.plan.slot_of_token
        S, h, N, P = num_sequences, self.num_heads, len(slots), len(tokens)
        seq = torch.arange(S, device=slots.device)[:, None, None]
        head = torch.arange(h, device=slots.device)
        part = torch.arange(3, device=slots.device)

        token = seq * N + tokens  # (S, 1, P)
        row_of_slot = token * h + head[:, None]  # (S, h, P)
        row_of_token = (seq * h + head) * P + slots[:, None]  # (S, N, h)
        part_of_row = (part[:, None] * h + head)[:, None, :, None]
        qkv_of_slot = token * 3 * h + part_of_row  # (3, S, h, P)
        slot_of_qkv = row_of_token[:, :, None] + (part * S * h * P)[:, None]
        return _Rows(
            qkv_of_slot.view(-1), slot_of_qkv.view(-1), row_of_slot.view(-1),
            row_of_token.view(-1))

    @cached_property
    def bias_of_pair(self) -> Tensor:
        """Int64 (G * g * g,), entries of the bias table, which is followed
        by g entries "blocked" and g entries "padding", one for each key. The
        gradients of one entry are added one after another on a GPU."""
        window = self.plan.window_of_slot
        position = self.plan.position_of_slot
        size = self.plan.group_size
        blocked = torch.arange(
            size, device=window.device) + (
                self.plan.num_entries)
        pair = position[:, :, None] - position[:, None] + self.plan.middle
        same = window[:, :, None] == window[:, None]
        pair = torch.where(same, pair, blocked)
        is_padding = window < 0
        both = is_padding[:, :, None] & is_padding[:, None]
        return torch.where(both, blocked + size, pair).view(-1)

    def constants(self, dtype: torch.dtype) -> Tensor:
        """Biases (h, 2 * g) of the entries "blocked" and "padding"."""
        if dtype not in self._constants:
            h, _, g = self.shape
            device = self.plan.window_of_slot.device
            constants = torch.zeros(h, 2 * g, dtype=dtype, device=device)
            constants[:, :g] = float('-inf')
            self._constants[dtype] = constants
        return self._constants[dtype]

    @cached_property
    def is_blocked(self) -> Tensor:
        """Bool (1, G, g, g), True for the slots of two windows."""
        window = self.plan.window_of_slot
        return (window[:, :, None] != window[:, None])[None]


def gather_bias(bias_table: Optional[Tensor], index: GroupIndex,
                dtype: torch.dtype) -> Tensor:
    """The bias of every pair of slots: -inf between windows, 0 in padding.

    Its shape is (h, G, g, g) or, in ``dtype``, (1, G, g, g) without a table.
    """
    h, G, g = index.shape
    if bias_table is None:
        blocked = index.is_blocked
        zeros = torch.zeros_like(blocked, dtype=dtype)
        return zeros.masked_fill(blocked, float('-inf'))
    constants = index.constants(bias_table.dtype)
    table = torch.cat([bias_table.t(), constants], dim=1)
    return table.index_select(1, index.bias_of_pair).view(h, G, g, g)


def _eager(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float,
           dropout: float) -> Tensor:
    S, h, G, g, d = q.shape
    matrices = (S * h * G, g, d)
    q, k, v = (x.reshape(matrices) for x in (q * scale, k, v))
    logits = torch.bmm(q, k.transpose(1, 2)).view(S, h, G, g, g)
    logits += bias
    weights = torch.dropout(logits.softmax(-1), dropout, dropout > 0)
    return torch.bmm(weights.view(S * h * G, g, g), v)


# Blocks of a CUDA grid in its second and third dimension
MAX_BLOCKS = 65535


def _kernels(is_cuda: bool) -> ContextManager:
    """Which of PyTorch's kernels may run.

    On a GPU the memory-efficient one is asked for: it takes a bias, and its
    gradient, for any number of slots. cuDNN's would be planned anew for every
    shape.
    """
    if not is_cuda:
        return nullcontext()
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def _sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float,
          dropout: float) -> Tensor:
    S, h, G, g, d = q.shape
    own = len(bias)  # heads with a bias of their own, h or 1
    matrices = (S * h // own, own * G, g, d)
    tensors = [x.reshape(matrices) for x in (q, k, v)]
    tensors.append(bias.to(q.dtype).view(1, own * G, g, g))

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)

    with _kernels(q.is_cuda):
        if own * G <= MAX_BLOCKS:
            return attend(*tensors)
        parts = zip(*(x.split(MAX_BLOCKS, 1) for x in tensors))
        return torch.cat([attend(*part) for part in parts], 1)


BACKENDS = ('auto', 'eager', 'sdpa', 'fused')


def check_backend(name: str) -> None:
    """Raise ``ValueError`` unless there is an attention backend ``name``."""
    if name not in BACKENDS:
        raise ValueError(f'expected attn_backend to be one of {BACKENDS}, got '
                         f'{name!r}')


def choose_backend(name: str, qkv: Tensor, index: GroupIndex,
                   dropout: float) -> str:
    """The backend that is used for a name.

    ``auto`` is ``sdpa`` on a GPU and ``eager`` elsewhere. Where the fused
    kernel cannot run, or would run badly, the choice of ``auto`` is used, with
    one warning.

    Raises:
        ValueError: If there is no backend of this name.
    """
    check_backend(name)
    if name in ('eager', 'sdpa'):
        return name
    auto = 'sdpa' if qkv.is_cuda else 'eager'
    if name == 'auto':
        return auto
    reason = _why_not_fused(qkv, index, dropout)
    if reason:
        warnings.warn(f'the fused attention {reason}; using {auto!r}')
        return auto
    return name


def _why_not_fused(qkv: Tensor, index: GroupIndex, dropout: float) -> str:
    if find_spec('triton') is None:
        return 'needs Triton, which is not installed'
    if not (qkv.is_cuda or os.environ.get('TRITON_INTERPRET') == '1'):
        return f'needs a GPU, got tensors on {qkv.device}'
    if dropout:
        return 'has no dropout of the attention weights'
    if qkv.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f'needs fp32, fp16 or bf16, got {qkv.dtype}'
    if not qkv.is_cuda:
        return ''
    from ._triton_attention import why_not
    h, _, g = index.shape
    return why_not(qkv.dtype, qkv.shape[-1] // (3 * h), g)


def group_attention(qkv: Tensor,
                    index: GroupIndex,
                    bias_table: Optional[Tensor],
                    scale: float,
                    dropout: float = 0.,
                    backend: str = 'auto') -> Tensor:
    """Attention within windows, computed group by group.

    Args:
        qkv (Tensor): Shape (B, K, T, 3 * h * d), queries, keys and values of
            the visible tokens. Any leading dimensions that multiply to S * N
            will do.
        index (GroupIndex): The plan on the device.
        bias_table (Tensor | None): Relative position biases, (R, h); None
            for attention without them.
        scale (float): Factor of the dot products.
        dropout (float): Dropout of the attention weights. Defaults to 0.
        backend (str): ``auto``, ``eager``, ``sdpa`` or ``fused``, see
            :func:`choose_backend`. Defaults to ``'auto'``.

    Returns:
        Tensor: Shape (B, K, T, h * d), or (..., h * d).
    """
    h, G, g = index.shape
    N, C = len(index.plan.slot_of_token), qkv.shape[-1]
    out_shape = (*qkv.shape[:-1], C // 3)
    backend = choose_backend(backend, qkv, index, dropout)
    if backend == 'fused':
        from ._triton_attention import FusedGroupAttention
        if bias_table is None:
            bias_table = qkv.new_zeros(index.plan.num_entries, h)
        out = FusedGroupAttention.apply(
            qkv.reshape(-1, N, C), bias_table, index.plan, h, scale)
        return out.view(out_shape)
    S, d = qkv.numel() // (N * C), C // (3 * h)
    rows = index.rows(S)
    qkv = _PermuteRows.apply(
        qkv.reshape(-1, d), rows.qkv_of_slot, rows.slot_of_qkv)
    q, k, v = qkv.view(3, S, h, G, g, d).unbind()
    bias = gather_bias(bias_table, index, qkv.dtype)
    attend = _sdpa if backend == 'sdpa' else _eager
    out = attend(q, k, v, bias, scale, dropout)
    out = _PermuteRows.apply(
        out.reshape(-1, d), rows.slot_of_token, rows.token_of_slot)
    return out.view(out_shape)
