# Copyright (c) greenmim authors. All rights reserved.
"""Attention in windows, for the backbones that have it."""
from typing import Any, Dict, Optional

import torch
from torch import Tensor

from greenmim.ops import GroupIndex, GroupPlan, Window, group_attention


def index_windows(groups: Dict[Window, GroupPlan], num_heads: int,
                  device: torch.device) -> Dict[Window, GroupIndex]:
    """The plans of a stage on the device, by the window of a block.

    Args:
        groups (dict[Window, GroupPlan]): The plans of the stage.
        num_heads (int): Attention heads of the stage.
        device (torch.device): Where the tokens are.
    """
    # Several windows may share a plan, which is copied once.
    indices = {
        plan: GroupIndex.from_plan(plan, num_heads, device)
        for plan in set(groups.values())
    }
    return {window: indices[plan] for window, plan in groups.items()}


def window_attention(attn: Any, qkv_BKTC: Tensor, index: GroupIndex,
                     bias_table: Optional[Tensor], scale: float,
                     backend: str) -> Tensor:
    """Attention of the visible tokens within windows.

    Args:
        attn (nn.Module): The dense attention, whose dropout of attention
            weights applies.
        qkv_BKTC (Tensor): Queries, keys and values, (B, K, T, 3 * C).
        index (GroupIndex): The plan of its windows.
        bias_table (Tensor | None): See :func:`greenmim.ops.group_attention`.
        scale (float): Factor of the dot products.
        backend (str): See :func:`greenmim.ops.group_attention`.

    Returns:
        Tensor: Shape (B, K, T, C).
    """
    dropout = attn.attn_drop.p if attn.training else 0.
    return group_attention(qkv_BKTC, index, bias_table, scale, dropout,
                           backend)
