# Copyright (c) greenmim authors. All rights reserved.
"""HiViT that computes visible mask units only.

In the last stage a unit is one token, ``x_BKC``. The letters are defined in
:mod:`greenmim.ops`.
"""
from typing import Any, Iterable, List, Optional, Sequence, Tuple

import torch
from mmpretrain.models import HiViT
from mmpretrain.models.backbones.hivit import (Attention, BlockWithRPE,
                                               PatchMerge)
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import MaskPlan, patches_of_units
from greenmim.ops.mask_unit import Grid
from greenmim.registry import MODELS
from ..visible import (CompileBlocks, Compiled, Divisors, VisibleBackbone,
                       check_in_units, draw_drop_paths, drop, linear_tokens,
                       run_block, visible_positions)


def _attention(attn: Attention, x_BKC: Tensor,
               pairs: Optional[Tensor]) -> Tensor:
    """Attention among the visible tokens of an image."""
    B, K, C = x_BKC.shape
    qkv = attn.qkv(x_BKC).view(B, K, 3, attn.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    bias = None
    if pairs is not None:  # (M, h, K, K)
        bias = attn.relative_position_bias_table[pairs].permute(0, 3, 1, 2)
        bias = bias.to(q.dtype)
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=bias,
        dropout_p=attn.attn_drop.p if attn.training else 0.,
        scale=attn.scale)
    out = attn.proj(out.transpose(1, 2).reshape(B, K, C))
    return attn.proj_drop(out)


def early_block(block: BlockWithRPE, x: Tensor, divisors: Divisors) -> Tensor:
    """Run a block without attention on tokens (..., C)."""
    hidden = block.mlp(block.norm2(x))
    if block.gamma_2 is not None:
        hidden = block.gamma_2 * hidden
    return x + drop(hidden, divisors[-1])


def visible_block(block: BlockWithRPE, x_BKC: Tensor, pairs: Optional[Tensor],
                  divisors: Divisors) -> Tensor:
    """Run a block with attention on visible units of one token, (B, K, C)."""
    attended = _attention(block.attn, block.norm1(x_BKC), pairs)
    if block.gamma_1 is not None:
        attended = block.gamma_1 * attended
    x_BKC = x_BKC + drop(attended, divisors[0])
    return early_block(block, x_BKC, divisors)


@MODELS.register_module()
class GreenMIMHiViT(VisibleBackbone, HiViT):
    """HiViT that drops masked units.

    Without a mask it is MMPretrain's ``HiViT``, whose parameters, names and
    shapes it has. With a mask it computes visible units only, as in `HiViT: A
    Simpler and More Efficient Design of Hierarchical Vision Transformer
    <https://arxiv.org/abs/2205.14949>`_: its early stages work inside units,
    and in the last one, where a unit is a token, visible tokens attend to
    each other.

    A stage ends where a patch merging begins. There is no final norm.

    Args:
        out_indices (Sequence[int]): Blocks whose maps are returned. The last
            stands for the last block, as in the parent. Before it may stand
            numbers of blocks before the last stage, with which the parent
            fails: :attr:`stage_ends` are those whose maps have the strides
            4 and 8. Defaults to (23, ).
        with_cp (bool): Checkpoint the blocks of the masked forward, which
            saves memory for a second forward. Defaults to False.
        compile_blocks (bool | str): Compile the blocks of the masked forward
            by ``torch.compile``, a function for each stage; a string is its
            mode. Defaults to False.
        **kwargs: Other arguments of ``mmpretrain.HiViT``. With
            ``frozen_stages`` the patch embedding, the positions and as many
            of ``blocks`` are frozen, where the parent fails.

    Raises:
        ValueError: If the last stage has no more blocks than those before
            it, with which the parent's forward fails.
    """

    def __init__(self,
                 *args: Any,
                 out_indices: Sequence[int] = (23, ),
                 with_cp: bool = False,
                 compile_blocks: CompileBlocks = False,
                 **kwargs: Any) -> None:
        # The parent writes into the list that it gets.
        super().__init__(*args, out_indices=list(out_indices), **kwargs)
        self.with_cp = with_cp
        early = self.blocks[:-self.num_main_blocks]
        merges = sum(isinstance(block, PatchMerge) for block in early)
        self._run_block = [
            *Compiled.of_stages(early_block, merges, compile_blocks),
            Compiled(visible_block, compile_blocks)
        ]
        num_before = len(self.blocks) - self.num_main_blocks
        if num_before >= self.num_main_blocks:
            raise ValueError(
                f'expected a last stage of more blocks than the {num_before} '
                f'before it, got {self.num_main_blocks}; the parent counts '
                'both from 0, and its forward would confuse them')

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        return self.patch_size

    @property
    def stage_ends(self) -> List[int]:
        """The last block of every stage, as ``out_indices`` count them."""
        merges = [
            i for i, block in enumerate(self.blocks)
            if isinstance(block, PatchMerge)
        ]
        return [i - 1 for i in merges] + [self.num_main_blocks - 1]

    def forward_dense(self, x: Tensor) -> Tuple[Tensor, ...]:
        """The parent's forward, and maps of blocks before the last stage."""
        num_before = len(self.blocks) - self.num_main_blocks
        early = [i for i in self.out_indices[:-1] if i < num_before]
        if not early:
            return super().forward_dense(x)
        B, _, H, W = x.shape
        grid = H // self.patch_size, W // self.patch_size
        x = self.patch_embed(x)
        maps = []
        for i, block in enumerate(self.blocks[:num_before]):
            x = block(x)
            if i in early:  # (B, Gh * Gw, r, r, C) to (B, C, Gh * r, Gw * r)
                units = x.unflatten(1, grid).permute(0, 5, 1, 3, 2, 4)
                maps.append(units.flatten(4, 5).flatten(2, 3))
        x = x[..., 0, 0, :]
        if self.ape:
            x = x + self.interpolate_pos_encoding(x, H, W)
        x = self.pos_drop(x)
        for i, block in enumerate(self.blocks[num_before:]):
            x = block(x, True if self.rpe else None)
            if i in self.out_indices and i not in early:
                maps.append(x.transpose(1, 2).reshape(B, -1, *grid))
        return tuple(maps)

    @property
    def reads_map_size(self) -> bool:
        """Whether there are positions that are resized to the map."""
        return self.ape

    def forward_visible(self, images_BCHW: Tensor,
                        plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i)."""
        grid = plan.layout.grid
        units = plan.layout.units.to(images_BCHW.device, non_blocking=True)
        embed = self.patch_embed
        patches = patches_of_units(images_BCHW, units, self.unit_size,
                                   embed.proj.kernel_size[0])
        x = linear_tokens(embed.proj, patches)
        if embed.norm is not None:
            x = embed.norm(x)
        # The early blocks take (B, K, 4, 4, C), patches of 4 x 4 tokens.
        x = x.unflatten(2, (embed.inner_patches, embed.inner_patches))
        outs: List[Tensor] = []
        for stage in self._early_stages():
            dropped = draw_drop_paths([(block.drop_path, )
                                       for block in stage[:-1]], x)
            for block, divisors in zip(stage, dropped):
                x = run_block(self.with_cp, self._run_block[len(outs)], block,
                              x, divisors)
            outs.append(x.flatten(2, 3))
            x = run_block(self.with_cp, stage[-1], x)  # patch merging
        x_BKC = x[..., 0, 0, :]
        if self.ape:
            positions = visible_positions(self._positions(grid), units, grid)
            x_BKC = x_BKC + positions.flatten(1, 2)
        x_BKC = self.pos_drop(x_BKC)
        pairs = self._pairs(units, grid) if self.rpe else None
        blocks = self.blocks[-self.num_main_blocks:]
        dropped = draw_drop_paths([(block.drop_path, ) * 2
                                   for block in blocks], x_BKC)
        for block, divisors in zip(blocks, dropped):
            x_BKC = run_block(self.with_cp, self._run_block[-1], block, x_BKC,
                              pairs, divisors)
        outs.append(x_BKC[:, :, None])
        return outs

    def _early_stages(self) -> List[List[Any]]:
        """Blocks before the last stage; each stage ends with its merging."""
        stages: List[List[Any]] = [[]]
        for block in self.blocks[:-self.num_main_blocks]:
            stages[-1].append(block)
            if isinstance(block, PatchMerge):
                stages.append([])
        return stages[:-1]

    def check_masked(self) -> None:
        """Refuse options whose masked forward is not defined."""
        check_in_units(self.patch_embed.proj, self.unit_size)
        rows, cols = self.patch_embed.patches_resolution
        if self.ape and rows != cols:
            raise ValueError(
                'expected a square img_size, which absolute positions are '
                f'resized from, got {self.patch_embed.img_size}; images '
                'themselves need not be square')

    def _positions(self, grid: Grid) -> Tensor:
        """Absolute positions of all units, (1, L, C), by the parent."""
        # The parent reads only the shape of this tensor.
        tokens = torch.empty(
            1, grid[0] * grid[1], self.embed_dims, device='meta')
        return self.interpolate_pos_encoding(tokens, grid[0] * self.patch_size,
                                             grid[1] * self.patch_size)

    def _pairs(self, units: Tensor, grid: Grid) -> Tensor:
        """The entries of the bias tables for pairs of units, (M, K, K)."""
        side = self.patch_embed.patches_resolution[0]
        if max(grid) > side:
            raise ValueError(
                f'expected images of at most {side} x {side} units, for which '
                f'relative position biases were made, got {tuple(grid)}; '
                'enlarge img_size or set rpe=False')
        position = units // grid[1] * (2 * side - 1) + units % grid[1]
        distance = position[:, :, None] - position[:, None]
        return distance + 2 * side * (side - 1)

    def frozen_modules(self) -> Iterable[nn.Module]:
        """Patch embedding, positions and the first blocks."""
        if self.frozen_stages < 1:
            return ()
        return (self.patch_embed, self.pos_drop,
                *self.blocks[:self.frozen_stages])

    def _freeze_stages(self) -> None:
        """Freeze what the parent means to freeze; there is no final norm."""
        if self.ape:
            self.pos_embed.requires_grad = False
        self.freeze()

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> Tuple[int, int]:
        """Depth of a parameter, and the number of depths.

        The parent assigns the blocks to the last layer.
        """
        depth, num_layers = super().get_layer_depth(param_name, prefix)
        if param_name.startswith(f'{prefix}blocks.'):
            depth = int(param_name[len(prefix):].split('.')[1]) + 1
        return depth, num_layers
