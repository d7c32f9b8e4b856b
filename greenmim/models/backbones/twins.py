# Copyright (c) greenmim authors. All rights reserved.
"""Twins that computes visible mask units only.

``x_BKTC`` are unit-major tokens; the letters are defined in
:mod:`greenmim.ops`.
"""
import math
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from mmcv.cnn import build_norm_layer
from mmpretrain.models import PCPVT, SVT
from mmpretrain.models.backbones.twins import GSAEncoderLayer, LSAEncoderLayer
from torch import Tensor, nn

from greenmim.ops import (GroupIndex, GroupPlan, Halo, MaskPlan, StageWindows,
                          Window, patches_of_units)
from greenmim.ops.group_attention import check_backend
from greenmim.registry import MODELS
from ..visible import (CompileBlocks, Compiled, Divisors, Pyramid,
                       VisibleBackbone, check_in_units, checkpointed,
                       conv_in_units, depthwise_tokens, draw_drop_paths, drop,
                       ffn_tokens, index_windows, run_block,
                       visible_patch_embed, visible_reduced_attention,
                       window_attention)

Block = Union[LSAEncoderLayer, GSAEncoderLayer]


def before_attention(block: LSAEncoderLayer, x_BKTC: Tensor) -> Tensor:
    """Queries, keys and values for windows, (B, K, T, 3 * C)."""
    return block.attn.qkv(block.norm1(x_BKTC))


def after_attention(block: Block, x_BKTC: Tensor, attended: Tensor,
                    divisors: Divisors) -> Tensor:
    """What follows attention in windows, the output of the block."""
    attended = block.attn.proj_drop(block.attn.proj(attended))
    return _add_branches(block, x_BKTC, attended, divisors)


def global_block(block: GSAEncoderLayer, x_BKTC: Tensor,
                 divisors: Divisors) -> Tensor:
    """Run a block with attention to sub-sampled keys."""
    attended = visible_reduced_attention(block.attn, block.norm1(x_BKTC))
    attended = drop(attended, divisors[0])
    return _add_branches(block, x_BKTC, attended, divisors)


def _add_branches(block: Block, x_BKTC: Tensor, attended: Tensor,
                  divisors: Divisors) -> Tensor:
    x_BKTC = x_BKTC + drop(attended, divisors[1])
    hidden = drop(ffn_tokens(block.ffn, block.norm2(x_BKTC)), divisors[2])
    return x_BKTC + drop(hidden, divisors[3])


def drop_paths(block: Block) -> List[nn.Module]:
    """Stochastic depth, twice on a branch where the dense block has it so."""
    own = getattr(block.attn, 'out_drop', nn.Identity())
    return [own, block.drop_path, block.ffn.dropout_layer, block.drop_path]


class VisibleTwins(Pyramid, VisibleBackbone):
    """The masked forward of PCPVT and SVT, and options that they lack.

    Use as a mixin with one of them.
    """

    strides: List[int]
    num_heads: List[int]
    position_encodings: Any
    position_encoding_drops: Any
    out_indices: Tuple[int, ...]
    attn_backend = 'auto'

    def __init__(self,
                 *args: Any,
                 patch_norm_cfg: Optional[dict] = None,
                 with_cp: bool = False,
                 frozen_stages: int = -1,
                 compile_blocks: CompileBlocks = False,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._before, self._after, self._global = (
            Compiled.of_stages(function, len(self.stages), compile_blocks)
            for function in (before_attention, after_attention, global_block))
        if patch_norm_cfg is not None:
            for embed in self.patch_embeds:
                embed.norm = build_norm_layer(patch_norm_cfg,
                                              embed.embed_dims)[1]
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        self.freeze()

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        return math.prod(self.strides)

    def forward_dense(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Feature maps (B, C, H, W) of unmasked images."""
        if not self.with_cp:
            return super().forward_dense(x)
        with checkpointed(block for stage in self.stages for block in stage):
            return super().forward_dense(x)

    def forward_visible(self, images_BCHW: Tensor,
                        plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i).

        They have passed ``norm_after_stage``, if there is one, and so has the
        input of the next stage, as in the dense model.
        """
        units = plan.layout.units.to(images_BCHW.device, non_blocking=True)
        x_BKTC = patches_of_units(images_BCHW, units, self.unit_size,
                                  self.strides[0])
        groups = plan.groups_on(x_BKTC.device)
        outs = []
        for i, stage in enumerate(self.stages):
            embed = self.patch_embeds[i]
            if i == 0:
                x_BKTC = visible_patch_embed(embed, x_BKTC)
            else:
                x_BKTC = embed.norm(conv_in_units(embed.projection, x_BKTC))
            x_BKTC = self.position_encoding_drops[i](x_BKTC)
            index = self._group_index(i, groups, x_BKTC.device)
            dropped = draw_drop_paths([drop_paths(block) for block in stage],
                                      x_BKTC)
            for j, (block, divisors) in enumerate(zip(stage, dropped)):
                x_BKTC = run_block(self.with_cp, self._forward_block, i, block,
                                   x_BKTC, divisors, index)
                if j == 0:
                    halo = Halo.from_layout(plan.layout, self._side(i), 1,
                                            x_BKTC.device)
                    x_BKTC = x_BKTC + depthwise_tokens(
                        self.position_encodings[i].proj, x_BKTC, halo)
            x_BKTC = getattr(self, f'norm_after_stage{i}')(x_BKTC)
            outs.append(x_BKTC)
        return outs

    def _forward_block(self, stage: int, block: Block, x_BKTC: Tensor,
                       divisors: Divisors,
                       index: Optional[GroupIndex]) -> Tensor:
        """The output of a block, (B, K, T, C)."""
        if isinstance(block, GSAEncoderLayer):
            return self._global[stage](block, x_BKTC, divisors)
        assert index is not None
        attn = block.attn
        attended = window_attention(attn, self._before[stage](block, x_BKTC),
                                    index, None, attn.scale, self.attn_backend)
        return self._after[stage](block, x_BKTC, attended, divisors)

    def _group_index(self, stage: int, groups: List[Dict[Window, GroupPlan]],
                     device: torch.device) -> Optional[GroupIndex]:
        """The plan of a stage's windows on the device, if it has any."""
        if not groups:
            return None
        index, = index_windows(groups[stage], self.num_heads[stage],
                               device).values()
        return index

    def check_masked(self) -> None:
        """Refuse layers that read beyond a mask unit."""
        side = self.unit_size
        for i, stage in enumerate(self.stages):
            check_in_units(self.patch_embeds[i].projection, side)
            side //= self.strides[i]
            for block in stage:
                if (isinstance(block, GSAEncoderLayer)
                        and block.attn.sr_ratio > 1):
                    check_in_units(block.attn.sr, side)

    def _side(self, stage: int) -> int:
        """Tokens along a unit's side in a stage."""
        return math.prod(self.strides[stage + 1:])


@MODELS.register_module()
class GreenMIMPCPVT(VisibleTwins, PCPVT):
    """Twins-PCPVT that computes visible mask units only.

    Without a mask it is MMPretrain's ``PCPVT``, whose parameters, names and
    shapes it has. With a mask, attention is to the sub-sampled tokens of
    visible units, and the conditional position encoding sees zeros instead of
    masked tokens.

    Args:
        patch_norm_cfg (dict, optional): Norm of the patch embeddings.
            Defaults to None, the parent's: a LayerNorm of eps 1e-5, whatever
            ``norm_cfg`` is.
        with_cp (bool): Trade time for memory: checkpoint every block.
            Defaults to False.
        frozen_stages (int): Stages up to this one, counted from 0, are not
            trained. Defaults to -1, none.
        compile_blocks (bool | str): Compile the blocks of the masked forward
            by ``torch.compile``, a function for each stage; a string is its
            mode. Defaults to False.
        **kwargs: Arguments of ``mmpretrain.PCPVT``. The last stage has no
            norm unless ``norm_after_stage`` says so.
    """


@MODELS.register_module()
class GreenMIMSVT(VisibleTwins, SVT):
    """Twins-SVT that computes visible mask units only.

    Without a mask it is MMPretrain's ``SVT``, whose parameters, names and
    shapes it has. With a mask, locally grouped attention is group window
    attention, as in `Green Hierarchical Vision Transformer for Masked Image
    Modeling <https://arxiv.org/abs/2205.13515>`_, and all else as in
    :class:`GreenMIMPCPVT`.

    Visible-only attention has no padding. The dense model pads a map that
    windows do not divide; it blocks the padding where both sides need some,
    and lets it take part in attention where one side does.

    Args:
        attn_backend (str): Backend of the locally grouped attention with a
            mask: ``'auto'``, ``'eager'``, ``'sdpa'`` or ``'fused'``, see
            :mod:`greenmim.ops.group_attention`. Defaults to ``'auto'``.
        **kwargs: Other arguments of :class:`GreenMIMPCPVT`, and of
            ``mmpretrain.SVT``.

    Raises:
        ValueError: If there is no such backend.
    """

    window_sizes: List[int]

    def __init__(self,
                 *args: Any,
                 attn_backend: str = 'auto',
                 **kwargs: Any) -> None:
        check_backend(attn_backend)
        super().__init__(*args, **kwargs)
        self.attn_backend = attn_backend

    def stage_windows(self) -> List[StageWindows]:
        """The locally grouped attention of every stage.

        A window that exceeds the map stays as it is, as in the dense model.
        """
        return [
            StageWindows(
                self._side(i), (Window(size, 0, size, pad_small_map=True), ))
            for i, size in enumerate(self.window_sizes)
        ]
