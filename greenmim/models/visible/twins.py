# Copyright (c) greenmim authors. All rights reserved.
"""The blocks of MMPretrain's Twins on visible tokens.

They work on the dense model's own modules, so that parameters, names and
the dense forward stay what they are; also where the dense model applies
stochastic depth twice to a branch.
"""
from typing import Optional, Union

from mmpretrain.models.backbones.twins import GSAEncoderLayer, LSAEncoderLayer
from torch import Tensor

from greenmim.ops import GroupIndex, group_attention
from .spatial_reduction import visible_reduced_attention


def visible_twins_block(x_BKTC: Tensor, block: Union[LSAEncoderLayer,
                                                     GSAEncoderLayer],
                        index: Optional[GroupIndex],
                        attn_backend: str) -> Tensor:
    """Run a block of Twins.

    Args:
        x_BKTC (Tensor): Unit-major tokens.
        block (LSAEncoderLayer | GSAEncoderLayer): With attention that is
            grouped by windows, or sub-sampled and global.
        index (GroupIndex, optional): The plan of the windows, for a block
            that has them.
        attn_backend (str): See :func:`greenmim.ops.group_attention`.

    Returns:
        Tensor: Shape (B, K, T, C).
    """
    attn = block.attn
    normed = block.norm1(x_BKTC)
    if isinstance(block, LSAEncoderLayer):
        assert index is not None
        qkv = attn.qkv(normed)
        attended = group_attention(
            qkv.view(index.num_sequences, -1, qkv.shape[-1]),
            index,
            None,
            attn.scale,
            dropout=attn.attn_drop.p if attn.training else 0.,
            backend=attn_backend)
        attended = attn.proj_drop(attn.proj(attended.view(x_BKTC.shape)))
    else:
        attended = visible_reduced_attention(attn, normed)
    x_BKTC = x_BKTC + block.drop_path(attended)
    return x_BKTC + block.drop_path(block.ffn(block.norm2(x_BKTC)))
