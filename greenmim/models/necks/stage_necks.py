# Copyright (c) greenmim authors. All rights reserved.
"""Decoders that read the tokens of all stages.

They reduce the T_i tokens of a unit in stage i to one by a linear layer over
all their values, a convolution with kernel and stride of the unit's side.
"""
from typing import Any, List, Optional, Sequence, Union

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn

from greenmim.ops import VisibleLayout
from greenmim.registry import MODELS
from .greenmim_neck import GreenMIMNeck


@MODELS.register_module()
class FusionNeck(BaseModule):
    """MAE's decoder on the sum of all stages, after `Hiera's
    <https://arxiv.org/abs/2306.00989>`_ multi-stage fusion.

    Each stage's tokens are normed and reduced to one a unit.

    Args:
        in_channels (Sequence[int]): Channels of every stage.
            Defaults to those of Swin-B.
        tokens (Sequence[int]): Tokens of a unit in every stage.
            Defaults to ``(64, 16, 4, 1)``, for four stages.
        norm_cfg (dict): Config of the norm layers.
            Defaults to ``dict(type='LN', eps=1e-6)``.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.
        **kwargs: Of the decoder, see :class:`GreenMIMNeck`.
    """

    reads_stages = True

    def __init__(self,
                 in_channels: Sequence[int] = (128, 256, 512, 1024),
                 tokens: Sequence[int] = (64, 16, 4, 1),
                 norm_cfg: dict = dict(type='LN', eps=1e-6),
                 init_cfg: Optional[Union[dict, List[dict]]] = None,
                 **kwargs: Any) -> None:
        super().__init__(init_cfg=init_cfg)
        _check_lengths(in_channels, tokens=tokens)
        # A sum of linear layers is a linear layer on what they read.
        width = sum(c * t for c, t in zip(in_channels, tokens))
        self.shapes = list(zip(tokens, in_channels))
        self.stage_norms = nn.ModuleList(
            build_norm_layer(norm_cfg, c) for c in in_channels)
        self.decoder = GreenMIMNeck(width, norm_cfg=norm_cfg, **kwargs)

    def forward(self, stages: Sequence[Tensor],
                mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """Predict the values of all units.

        Args:
            stages (Sequence[Tensor]): The tokens of all stages, unit-major,
                (B, K, T_i, C_i).
            mask (Tensor | VisibleLayout): Bool of shape (M, Gh, Gw), True =
                masked, or the layout made from it.

        Returns:
            Tensor: Shape (B, L, out_channels).

        Raises:
            ValueError: If these are not the stages that were expected.
        """
        _check_stages(stages, self.shapes)
        fused = [
            norm(x).flatten(2) for norm, x in zip(self.stage_norms, stages)
        ]
        return self.decoder(torch.cat(fused, dim=2), mask)


@MODELS.register_module()
class LocalReconstructionNeck(BaseModule):
    """A small decoder for each stage.

    So that early stages learn from targets of their own scale, and not from
    what the last stage lets through (the idea of `LocalMIM
    <https://arxiv.org/abs/2303.05251>`_, whose decoders are others). A unit's
    predictions for all stages follow each other in the last dimension, as
    :class:`greenmim.models.SumOfHeads` splits them.

    Args:
        in_channels (Sequence[int]): Channels of every stage.
        out_channels (Sequence[int]): Values that each stage predicts for a
            unit.
        tokens (Sequence[int]): Tokens of a unit in every stage.
            Defaults to ``(64, 16, 4, 1)``, for four stages.
        embed_dims (int): Channels of the decoders. Defaults to 256.
        num_heads (int): Attention heads of a block. Defaults to 8.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.
        **kwargs: Of every decoder, see :class:`GreenMIMNeck`.
    """

    reads_stages = True

    def __init__(self,
                 in_channels: Sequence[int],
                 out_channels: Sequence[int],
                 tokens: Sequence[int] = (64, 16, 4, 1),
                 embed_dims: int = 256,
                 num_heads: int = 8,
                 init_cfg: Optional[Union[dict, List[dict]]] = None,
                 **kwargs: Any) -> None:
        super().__init__(init_cfg=init_cfg)
        _check_lengths(in_channels, tokens=tokens, out_channels=out_channels)
        self.shapes = list(zip(tokens, in_channels))
        # MMEngine's list has its modules draw their weights.
        self.decoders = ModuleList(
            GreenMIMNeck(
                c * t,
                embed_dims,
                num_heads=num_heads,
                out_channels=out,
                **kwargs)
            for c, t, out in zip(in_channels, tokens, out_channels))

    def forward(self, stages: Sequence[Tensor],
                mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """Predict the values of all units, stage by stage.

        Args:
            stages (Sequence[Tensor]): The tokens of all stages, unit-major,
                (B, K, T_i, C_i).
            mask (Tensor | VisibleLayout): Bool of shape (M, Gh, Gw), True =
                masked, or the layout made from it.

        Returns:
            Tensor: Shape (B, L, sum of out_channels).

        Raises:
            ValueError: If these are not the stages that were expected.
        """
        _check_stages(stages, self.shapes)
        preds = [
            decoder(x.flatten(2), mask)
            for decoder, x in zip(self.decoders, stages)
        ]
        return torch.cat(preds, dim=2)


def _check_lengths(in_channels: Sequence[int],
                   **others: Sequence[int]) -> None:
    for name, values in others.items():
        if len(values) != len(in_channels):
            raise ValueError(
                f'expected {name} for each of {len(in_channels)} stages, as '
                f'in_channels={list(in_channels)}, got {list(values)}')


def _check_stages(stages: Sequence[Tensor], expected: List[tuple]) -> None:
    found = [tuple(x.shape[2:]) for x in stages]
    if found != expected:
        raise ValueError(
            f'expected stages of (tokens a unit, channels) {expected}, got '
            f'{found}; set tokens and in_channels of the neck, and '
            'out_indices of a dense backbone to all stages')
