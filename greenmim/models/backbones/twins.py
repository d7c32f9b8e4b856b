# Copyright (c) greenmim authors. All rights reserved.
"""Twins that computes visible mask units only."""
import math
from typing import Any, List, Optional, Tuple, Union

from mmcv.cnn import build_norm_layer
from mmpretrain.models import PCPVT, SVT
from mmpretrain.models.backbones.twins import GSAEncoderLayer
from torch import Tensor

from greenmim.ops import (BACKENDS, GroupIndex, Halo, MaskPlan, StageWindows,
                          Window, depthwise_conv, patches_of_units)
from greenmim.registry import MODELS
from ..visible import (Pyramid, VisibleBackbone, check_in_units, conv_in_units,
                       index_windows, visible_patch_embed, visible_twins_block)
from ..visible.visible_backbone import Mask


class VisibleTwins(Pyramid, VisibleBackbone):
    """The masked forward of PCPVT and SVT, and options that they lack.

    It has no meaning without one of them among the bases of a class.
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
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.patch_embeds[0].projection.in_channels

    def forward(
            self,
            x: Tensor,
            mask: Optional[Mask] = None) -> Union[Tensor, Tuple[Tensor, ...]]:
        """See :meth:`VisibleBackbone.forward`."""
        if mask is not None or not self.with_cp:
            return super().forward(x, mask)
        outs = []
        for i, stage in enumerate(self.stages):
            x, hw_shape = self.patch_embeds[i](x)
            x = self.position_encoding_drops[i](x)
            for j, block in enumerate(stage):
                x = self.run_block(block, x, hw_shape)
                if j == 0:
                    x = self.position_encodings[i](x, hw_shape)
            x = getattr(self, f'norm_after_stage{i}')(x)
            x = x.view(len(x), *hw_shape, -1).permute(0, 3, 1, 2).contiguous()
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def forward_visible(self, x: Tensor, plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i).

        They have passed ``norm_after_stage``, where there is one, and so has
        what the next stage reads, as in the dense model.
        """
        units = plan.layout.units.to(x.device, non_blocking=True)
        outs = []
        for i, stage in enumerate(self.stages):
            embed = self.patch_embeds[i]
            if i == 0:
                x = patches_of_units(x, units, self.unit_size, self.strides[0])
                x = visible_patch_embed(embed, x)
            else:
                x = embed.norm(conv_in_units(embed.projection, x))
            x = self.position_encoding_drops[i](x)
            x = self._visible_stage(i, x, plan)
            x = getattr(self, f'norm_after_stage{i}')(x)
            outs.append(x)
        return outs

    def _visible_stage(self, stage: int, x: Tensor, plan: MaskPlan) -> Tensor:
        """The blocks of a stage and its position encoding, (B, K, T, C)."""
        index = self._group_index(stage, x, plan)
        for j, block in enumerate(self.stages[stage]):
            x = self.run_block(visible_twins_block, x, block, index,
                               self.attn_backend)
            if j == 0:
                halo = Halo.from_layout(plan.layout, self._side(stage), 1,
                                        x.device)
                conv = self.position_encodings[stage].proj
                x = x + depthwise_conv(x, halo, conv.weight, conv.bias)
        return x

    def _group_index(self, stage: int, x: Tensor,
                     plan: MaskPlan) -> Optional[GroupIndex]:
        """The plan of a stage's windows, where it has them."""
        return None

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
    visible units, and the conditional position encoding takes the tokens of
    masked units for zeros.

    Args:
        patch_norm_cfg (dict, optional): Norm of the patch embeddings.
            Defaults to None, the parent's: a LayerNorm of eps 1e-5, whatever
            ``norm_cfg`` is.
        with_cp (bool): Trade time for memory: checkpoint every block.
            Defaults to False.
        frozen_stages (int): Stages up to this one, counted from 0, are not
            trained. Defaults to -1, none.
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
        if attn_backend not in BACKENDS:
            raise ValueError(f'expected attn_backend to be one of {BACKENDS}, '
                             f'got {attn_backend!r}')
        super().__init__(*args, **kwargs)
        self.attn_backend = attn_backend

    def stage_windows(self) -> List[StageWindows]:
        """The locally grouped attention of every stage.

        A window that exceeds the map stays as it is, as in the dense model.
        """
        return [
            StageWindows(
                self._side(i), (Window(size, 0, size), ), pad_small_map=True)
            for i, size in enumerate(self.window_sizes)
        ]

    def _group_index(self, stage: int, x: Tensor,
                     plan: MaskPlan) -> GroupIndex:
        num_sequences = 1 if plan.layout.num_masks > 1 else len(x)
        window = self.stage_windows()[stage].windows[0]
        return index_windows(plan.groups[stage], [window], num_sequences,
                             self.num_heads[stage], x.device)[window]
