# Copyright (c) greenmim authors. All rights reserved.
"""The layers of MMPretrain's Swin Transformers on visible tokens.

They work on the dense model's own modules, so that parameters, names and
the dense forward stay what they are. ``x_BNC`` are unit-major tokens,
N = K * T (see :mod:`greenmim.ops.mask_unit`).
"""
from typing import Any, Callable, Tuple

import torch.utils.checkpoint as cp
from mmcv.cnn.bricks.transformer import PatchEmbed, PatchMerging
from mmpretrain.models.backbones.swin_transformer import SwinBlock
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import GroupIndex, group_attention, merge_tokens
from .compiled import Compiled

Before = Callable[[nn.Module, Tensor], Tuple[Tensor, Tensor, float]]
After = Callable[[nn.Module, Tensor, Tensor], Tensor]


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

    Args:
        merging (PatchMerging): The dense layer, of MMCV, or of MMPretrain,
            which has the norm behind the projection with
            ``use_post_norm=True``.
        x_BKTC (Tensor): The tokens.

    Returns:
        Tensor: Shape (B, K, T / 4, out_channels).
    """
    x = merge_tokens(x_BKTC)
    if merging.norm is None:
        return merging.reduction(x)
    if getattr(merging, 'use_post_norm', False):
        return merging.norm(merging.reduction(x))
    return merging.reduction(merging.norm(x))


def before_attention(block: SwinBlock,
                     x_BNC: Tensor) -> Tuple[Tensor, Tensor, float]:
    """The part of a block before attention.

    Args:
        block (SwinBlock): The dense block, whose modules are run.
        x_BNC (Tensor): Tokens, (B, N, C).

    Returns:
        tuple: Queries, keys and values (B, N, 3 * C), the table of relative
        position biases, and the scale of the dot products.
    """
    msa = block.attn.w_msa
    qkv = msa.qkv(block.norm1(x_BNC))
    return qkv, msa.relative_position_bias_table, msa.scale


def after_attention(block: SwinBlock, x_BNC: Tensor,
                    attended: Tensor) -> Tensor:
    """The part of a block after attention.

    Args:
        block (SwinBlock): The dense block, whose modules are run.
        x_BNC (Tensor): Tokens, (B, N, C).
        attended (Tensor): What they attended to, (B, N, C).

    Returns:
        Tensor: The tokens behind the block, (B, N, C).
    """
    msa = block.attn.w_msa
    attended = msa.proj_drop(msa.proj(attended))
    x_BNC = x_BNC + block.attn.drop(attended)
    return block.ffn(block.norm2(x_BNC), identity=x_BNC)


class WindowBlockRunner:
    """Runs the blocks of a dense Swin Transformer on visible tokens.

    Args:
        before (Callable): Maps a block and its tokens (B, N, C) to queries,
            keys and values (B, N, 3 * C), the table of relative position
            biases, and the scale of the dot products.
        after (Callable): Maps a block, its tokens and what they attended to,
            both (B, N, C), to the tokens behind the block.
        attn_backend (str): See :func:`greenmim.ops.group_attention`.
        compiled (bool): Compile what surrounds attention. Attention itself
            stays out of the graphs: its shapes change with every mask, those
            around it only with the number of visible units.
    """

    def __init__(self, before: Before, after: After, attn_backend: str,
                 compiled: bool) -> None:
        self.attn_backend = attn_backend
        self.before = Compiled(before, compiled)
        self.after = Compiled(after, compiled)

    def __call__(self, block: nn.Module, x_BNC: Tensor,
                 index: GroupIndex) -> Tensor:
        """Run a block; same shape as the input."""
        if block.with_cp and x_BNC.requires_grad:
            return cp.checkpoint(
                self._run, block, x_BNC, index, use_reentrant=False)
        return self._run(block, x_BNC, index)

    def _run(self, block: Any, x_BNC: Tensor, index: GroupIndex) -> Tensor:
        qkv, bias_table, scale = self.before(block, x_BNC)
        msa = block.attn.w_msa
        attended = group_attention(
            qkv.view(index.num_sequences, -1, qkv.shape[-1]),
            index,
            bias_table,
            scale,
            dropout=msa.attn_drop.p if msa.training else 0.,
            backend=self.attn_backend)
        return self.after(block, x_BNC, attended.view(x_BNC.shape))
