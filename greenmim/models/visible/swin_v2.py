# Copyright (c) greenmim authors. All rights reserved.
r"""Blocks of MMPretrain's Swin Transformer V2 on visible tokens.

For the queries q and keys k of a head, its scale :math:`\tau` and the network
G of relative positions (`Swin Transformer V2
<https://arxiv.org/abs/2111.09883>`_, sections 3.2 and 3.3)::

    logit_ij = min(exp(tau), 100) * cos(q_i, k_j)
               + 16 * sigmoid(G(log-spaced offset of i and j))

This is dot-product attention of normalised queries and keys with a table of
biases that the network computes.
"""
import math
from typing import Tuple

import torch
from mmpretrain.models.backbones.swin_transformer_v2 import SwinBlockV2
from mmpretrain.models.utils import WindowMSAV2
from torch import Tensor
from torch.nn import functional as F

MAX_LOG_SCALE = math.log(100.)


def continuous_bias_table(msa: WindowMSAV2) -> Tensor:
    """The biases of all offsets in the window, ((2 * w - 1)**2, heads)."""
    table = msa.cpb_mlp(msa.relative_coords_table)
    return 16 * table.view(-1, msa.num_heads).sigmoid()


def cosine_before_attention(block: SwinBlockV2,
                            x_BNC: Tensor) -> Tuple[Tensor, Tensor, float]:
    """The part of a block before attention.

    Args:
        block (SwinBlockV2): The dense block, whose modules are run.
        x_BNC (Tensor): Tokens, (B, N, C).

    Returns:
        tuple: Queries, keys and values (B, N, 3 * C), the former two
        normalised and the queries scaled; the table of biases; the scale 1.
    """
    msa = block.attn.w_msa
    bias = None
    if msa.q_bias is not None:
        bias = torch.cat(
            [msa.q_bias,
             msa.v_bias.new_zeros(msa.embed_dims), msa.v_bias])
    qkv = F.linear(x_BNC, msa.qkv.weight, bias)
    q, k, v = qkv.unflatten(-1, (3, msa.num_heads, -1)).unbind(2)
    scale = msa.logit_scale.clamp(max=MAX_LOG_SCALE).exp().view(-1, 1)
    q = F.normalize(q, dim=-1) * scale
    k = F.normalize(k, dim=-1)
    qkv = torch.stack([q.to(qkv), k.to(qkv), v], dim=2).flatten(2)
    return qkv, continuous_bias_table(msa), 1.


def post_norm_after_attention(block: SwinBlockV2, x_BNC: Tensor,
                              attended: Tensor) -> Tensor:
    """The part of a block after attention.

    Args:
        block (SwinBlockV2): The dense block, whose modules are run.
        x_BNC (Tensor): Tokens, (B, N, C).
        attended (Tensor): What they attended to, (B, N, C).

    Returns:
        Tensor: The tokens behind the block, (B, N, C).
    """
    msa = block.attn.w_msa
    attended = msa.proj_drop(msa.proj(attended))
    x_BNC = x_BNC + block.norm1(block.attn.drop(attended))
    x_BNC = x_BNC + block.norm2(block.ffn(x_BNC))
    return block.norm3(x_BNC) if block.extra_norm else x_BNC
