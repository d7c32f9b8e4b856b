# Copyright (c) greenmim authors. All rights reserved.
"""The layers of MMPretrain's Swin Transformer on visible tokens.

Functions over the dense model's own modules, so that parameters, names and
the dense forward stay what they are. ``x_BNC`` are unit-major tokens,
N = K * T (see :mod:`greenmim.ops.mask_unit`).
"""
import torch.utils.checkpoint as cp
from mmcv.cnn.bricks.transformer import PatchEmbed, PatchMerging
from mmpretrain.models.backbones.swin_transformer import SwinBlock
from mmpretrain.models.utils import WindowMSA
from torch import Tensor
from torch.nn import functional as F

from greenmim.ops import GroupIndex, group_attention, merge_tokens


def visible_patch_embed(patch_embed: PatchEmbed, patches: Tensor) -> Tensor:
    """Embed patches whose pixels are ordered (channel, row, column).

    Args:
        patch_embed (PatchEmbed): The dense layer, kernel = stride.
        patches (Tensor): Shape (..., in_channels * kernel**2).

    Returns:
        Tensor: Shape (..., embed_dims).
    """
    projection = patch_embed.projection
    x = F.linear(patches, projection.weight.flatten(1), projection.bias)
    return x if patch_embed.norm is None else patch_embed.norm(x)


def visible_patch_merging(merging: PatchMerging, x_BKTC: Tensor) -> Tensor:
    """Merge 2x2 tokens inside units.

    Returns:
        Tensor: Shape (B, K, T / 4, out_channels).
    """
    x = merge_tokens(x_BKTC)
    if merging.norm is not None:
        x = merging.norm(x)
    return merging.reduction(x)


def visible_window_attention(msa: WindowMSA,
                             x_BNC: Tensor,
                             index: GroupIndex,
                             backend: str = 'auto') -> Tensor:
    """Window attention of the visible tokens; same shape as the input."""
    qkv = msa.qkv(x_BNC).view(index.num_sequences, -1, 3 * msa.embed_dims)
    dropout = msa.attn_drop.p if msa.training else 0.
    x = group_attention(qkv, index, msa.relative_position_bias_table,
                        msa.scale, dropout, backend)
    return msa.proj_drop(msa.proj(x.view(x_BNC.shape)))


def visible_swin_block(block: SwinBlock,
                       x_BNC: Tensor,
                       index: GroupIndex,
                       backend: str = 'auto') -> Tensor:
    """A Swin block on visible tokens; same shape as the input."""

    def run(x: Tensor) -> Tensor:
        attn = visible_window_attention(block.attn.w_msa, block.norm1(x),
                                        index, backend)
        x = x + block.attn.drop(attn)
        return block.ffn(block.norm2(x), identity=x)

    if block.with_cp and x_BNC.requires_grad:
        return cp.checkpoint(run, x_BNC, use_reentrant=False)
    return run(x_BNC)
