# Copyright (c) greenmim authors. All rights reserved.
"""The layers of MMPretrain's Swin Transformer on visible tokens.

They work on the dense model's own modules, so that parameters, names and
the dense forward stay what they are. ``x_BNC`` are unit-major tokens,
N = K * T (see :mod:`greenmim.ops.mask_unit`).
"""
import torch
import torch.utils.checkpoint as cp
from mmcv.cnn.bricks.transformer import PatchEmbed, PatchMerging
from mmpretrain.models.backbones.swin_transformer import SwinBlock
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


def queries_keys_values(block: SwinBlock, x_BNC: Tensor) -> Tensor:
    """The part of a block before attention, (B, N, 3 * C)."""
    return block.attn.w_msa.qkv(block.norm1(x_BNC))


def finish_block(block: SwinBlock, x_BNC: Tensor, attended: Tensor) -> Tensor:
    """The part of a block after attention, (B, N, C)."""
    msa = block.attn.w_msa
    attended = msa.proj_drop(msa.proj(attended))
    x_BNC = x_BNC + block.attn.drop(attended)
    return block.ffn(block.norm2(x_BNC), identity=x_BNC)


class SwinBlockRunner:
    """Runs the dense model's blocks on visible tokens.

    Args:
        attn_backend (str): See :func:`greenmim.ops.group_attention`.
        compiled (bool): Compile what surrounds attention. Attention itself
            stays out of the graphs: its shapes change with every mask, those
            around it only with the number of visible units.
    """

    def __init__(self, attn_backend: str, compiled: bool) -> None:
        self.attn_backend = attn_backend
        self.compiled = compiled
        self.before, self.after = queries_keys_values, finish_block
        if compiled:
            self.before = torch.compile(self.before, dynamic=False)
            self.after = torch.compile(self.after, dynamic=False)

    def __reduce__(self) -> tuple:
        # Compiled functions cannot be pickled; copies compile their own.
        return SwinBlockRunner, (self.attn_backend, self.compiled)

    def __call__(self, block: SwinBlock, x_BNC: Tensor,
                 index: GroupIndex) -> Tensor:
        """Run a block; same shape as the input."""
        if block.with_cp and x_BNC.requires_grad:
            return cp.checkpoint(
                self._run, block, x_BNC, index, use_reentrant=False)
        return self._run(block, x_BNC, index)

    def _run(self, block: SwinBlock, x_BNC: Tensor,
             index: GroupIndex) -> Tensor:
        msa = block.attn.w_msa
        qkv = self.before(block, x_BNC)
        attended = group_attention(
            qkv.view(index.num_sequences, -1, qkv.shape[-1]),
            index,
            msa.relative_position_bias_table,
            msa.scale,
            dropout=msa.attn_drop.p if msa.training else 0.,
            backend=self.attn_backend)
        return self.after(block, x_BNC, attended.view(x_BNC.shape))
