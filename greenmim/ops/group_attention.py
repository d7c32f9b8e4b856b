# Copyright (c) greenmim authors. All rights reserved.
"""Group window attention (paper section 3.1).

For the slots i, j of one group, with queries q, keys k, values v, the table
of relative position biases r and the scale ``d**-0.5``::

    logit_ij = scale * q_i . k_j + r[position_i - position_j]
                                       if window_i = window_j, else -inf
    out_i    = sum_j softmax_j(logit_ij) v_j

so tokens attend within their own window only, as in the dense model.

Padding slots form a window of their own, with bias 0. What they hold reaches
no output, and no gradient from them reaches a token or the bias table.

S sequences share a plan of N tokens and P = G * g slots: all images and
N = K * T for a shared mask; S = 1 and N = B * K * T for one mask per image.
h heads of d channels.
"""
from dataclasses import dataclass
from typing import Any, Tuple

import torch
from torch import Tensor

from .grouping import GroupPlan


class _PermuteRows(torch.autograd.Function):
    """``x[index]`` whose backward is a gather too.

    ``inverse[r]`` is the row of the output that row r of the input goes to.
    Input rows may be repeated in the output (padding), but the gradient is
    taken from the row that ``inverse`` names alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return _PermuteRows.apply(grad.contiguous(), inverse, index), None, None


@dataclass(frozen=True, eq=False)
class GroupIndex:
    """A plan as index tensors on the device, for S sequences and h heads.

    Rows of d channels are moved, so that one gather takes the output of the
    qkv projection to matrices per head and group, and one takes it back.

    Args:
        shape (tuple[int, int, int, int]): (S, h, G, g).
        qkv_of_slot (Tensor): Int64 (3 * S * h * P,), rows of (S, N, 3, h).
        slot_of_qkv (Tensor): Int64 (S * N * 3 * h,), rows of (3, S, h, P).
        token_of_slot (Tensor): Int64 (S * h * P,), rows of (S, N, h).
        slot_of_token (Tensor): Int64 (S * N * h,), rows of (S, h, P).
        bias_of_pair (Tensor): Int64 (G * g * g,), entries of the bias table;
            behind its last entry stand "blocked" and "padding".
    """
    shape: Tuple[int, int, int, int]
    qkv_of_slot: Tensor
    slot_of_qkv: Tensor
    token_of_slot: Tensor
    slot_of_token: Tensor
    bias_of_pair: Tensor

    @classmethod
    def from_plan(cls, plan: GroupPlan, num_sequences: int, num_heads: int,
                  device: torch.device) -> 'GroupIndex':
        """Move a plan to the device and expand it."""
        tokens = plan.token_of_slot.to(device, non_blocking=True)
        slots = plan.slot_of_token.to(device, non_blocking=True)
        S, h, N, P = num_sequences, num_heads, len(slots), len(tokens)
        seq = torch.arange(S, device=device)[:, None, None]
        head = torch.arange(h, device=device)
        part = torch.arange(3, device=device)

        token = seq * N + tokens  # (S, 1, P)
        row_of_slot = token * h + head[:, None]  # (S, h, P)
        row_of_token = (seq * h + head) * P + slots[:, None]  # (S, N, h)
        part_of_row = (part[:, None] * h + head)[:, None, :, None]
        qkv_of_slot = token * 3 * h + part_of_row  # (3, S, h, P)
        slot_of_qkv = row_of_token[:, :, None] + (part * S * h * P)[:, None]
        return cls((S, h, plan.num_groups, plan.group_size),
                   qkv_of_slot.view(-1), slot_of_qkv.view(-1),
                   row_of_slot.view(-1), row_of_token.view(-1),
                   cls._bias_of_pair(plan, device))

    @staticmethod
    def _bias_of_pair(plan: GroupPlan, device: torch.device) -> Tensor:
        window = plan.window_of_slot.to(device, non_blocking=True)
        position = plan.position_of_slot.to(device, non_blocking=True)
        side = 2 * plan.table_size - 1
        blocked, padding = side * side, side * side + 1
        pair = position[:, :, None] - position[:, None, :] + side * side // 2
        pair = torch.where(window[:, :, None] == window[:, None, :], pair,
                           blocked)
        is_padding = window < 0
        pair = pair.masked_fill(is_padding[:, :, None] & is_padding[:, None],
                                padding)
        return pair.long().view(-1)


def gather_bias(bias_table: Tensor, index: GroupIndex) -> Tensor:
    """The bias of every pair of slots.

    Args:
        bias_table (Tensor): Shape ((2t - 1)**2, h).
        index (GroupIndex): The plan on the device.

    Returns:
        Tensor: Shape (h, G, g, g): -inf between windows, 0 within padding.
    """
    _, h, G, g = index.shape
    table = bias_table.t()
    blocked = table.new_full((h, 1), float('-inf'))
    padding = table.new_zeros((h, 1))
    table = torch.cat([table, blocked, padding], dim=1)
    return table.index_select(1, index.bias_of_pair).view(h, G, g, g)


def group_attention(qkv_SNC: Tensor,
                    index: GroupIndex,
                    bias_table: Tensor,
                    scale: float,
                    dropout: float = 0.) -> Tensor:
    """Attention within windows, computed group by group.

    Args:
        qkv_SNC (Tensor): Shape (S, N, 3 * h * d), queries, keys and values of
            the visible tokens.
        index (GroupIndex): The plan on the device.
        bias_table (Tensor): Relative position biases, ((2t - 1)**2, h).
        scale (float): Factor of the dot products.
        dropout (float): Dropout of the attention weights. Defaults to 0.

    Returns:
        Tensor: Shape (S, N, h * d).
    """
    S, h, G, g = index.shape
    d = qkv_SNC.shape[-1] // (3 * h)
    qkv = _PermuteRows.apply(
        qkv_SNC.reshape(-1, d), index.qkv_of_slot, index.slot_of_qkv)
    q, k, v = qkv.view(3, S * h * G, g, d).unbind()
    logits = torch.bmm(q * scale, k.transpose(1, 2)).view(S, h, G, g, g)
    logits += gather_bias(bias_table, index)
    weights = logits.softmax(-1)
    if dropout:
        weights = torch.dropout(weights, dropout, True)
    out = torch.bmm(weights.view(S * h * G, g, g), v)
    out = _PermuteRows.apply(
        out.view(-1, d), index.slot_of_token, index.token_of_slot)
    return out.view(S, -1, h * d)
