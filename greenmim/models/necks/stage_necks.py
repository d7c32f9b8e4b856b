# Copyright (c) greenmim authors. All rights reserved.
"""Decoders that read the tokens of all stages.

They reduce the T_i tokens of a unit in stage i to one by a linear layer on
all their values, which is a convolution whose kernel and stride are the
unit's side. The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import Any, List, Optional, Sequence, Union

import torch
from mmengine.model import ModuleList
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn

from greenmim.ops import VisibleLayout
from greenmim.registry import MODELS
from ..utils import Encoded
from .base import Neck
from .greenmim_neck import GreenMIMNeck


class StageNeck(Neck):
    """What the decoders of this module share."""

    def __init__(self,
                 in_channels: Sequence[int],
                 tokens: Sequence[int],
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        _check_length('tokens', tokens, in_channels)
        self.shapes = list(zip(tokens, in_channels))

    def decode(self, encoded: Encoded) -> Tensor:
        """See :meth:`Neck.decode`."""
        return self(encoded.stages, encoded.layout)

    def forward(self, stages: Sequence[Tensor],
                mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """Predict the values of all units.

        Args:
            stages (Sequence[Tensor]): The tokens of all stages, unit-major,
                (B, K, T_i, C_i).
            mask (Tensor | VisibleLayout): As of :class:`GreenMIMNeck`.

        Returns:
            Tensor: Shape (B, L, D).

        Raises:
            ValueError: If these are not the stages that were expected.
        """
        found = [tuple(x_BKTC.shape[2:]) for x_BKTC in stages]
        if found != self.shapes:
            raise ValueError(
                'expected stages of (tokens a unit, channels) '
                f'{self.shapes}, got {found}; set tokens and in_channels of '
                'the neck, and out_indices of a dense backbone to all stages')
        return self.predict(stages, mask)

    def predict(self, stages: Sequence[Tensor],
                mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """Predict the values of all units from stages that fit."""
        raise NotImplementedError


@MODELS.register_module()
class FusionNeck(StageNeck):
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
        **kwargs: Other arguments of the decoder, a :class:`GreenMIMNeck`
            without a class token.
    """

    def __init__(self,
                 in_channels: Sequence[int] = (128, 256, 512, 1024),
                 tokens: Sequence[int] = (64, 16, 4, 1),
                 norm_cfg: dict = dict(type='LN', eps=1e-6),
                 init_cfg: Optional[Union[dict, List[dict]]] = None,
                 **kwargs: Any) -> None:
        super().__init__(in_channels, tokens, init_cfg)
        # A sum of linear layers is one linear layer on all that they read.
        width = sum(c * t for c, t in zip(in_channels, tokens))
        self.stage_norms = nn.ModuleList(
            build_norm_layer(norm_cfg, c) for c in in_channels)
        self.decoder = GreenMIMNeck(
            width, norm_cfg=norm_cfg, class_token=False, **kwargs)

    def predict(self, stages: Sequence[Tensor],
                mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """See :meth:`StageNeck.predict`."""
        fused = [
            norm(x_BKTC).flatten(2)
            for norm, x_BKTC in zip(self.stage_norms, stages)
        ]
        return self.decoder(torch.cat(fused, dim=2), mask)


@MODELS.register_module()
class LocalReconstructionNeck(StageNeck):
    """A small decoder for each stage.

    Early stages learn from targets of their own scale, and not only from what
    reaches the last stage (the idea of `LocalMIM
    <https://arxiv.org/abs/2303.05251>`_, whose decoders differ). A unit's
    predictions for all stages are concatenated in the last dimension, which
    :class:`greenmim.models.SumOfHeads` splits.

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
        **kwargs: Other arguments of each decoder, a :class:`GreenMIMNeck`
            without a class token.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 out_channels: Sequence[int],
                 tokens: Sequence[int] = (64, 16, 4, 1),
                 embed_dims: int = 256,
                 num_heads: int = 8,
                 init_cfg: Optional[Union[dict, List[dict]]] = None,
                 **kwargs: Any) -> None:
        super().__init__(in_channels, tokens, init_cfg)
        _check_length('out_channels', out_channels, in_channels)
        # MMEngine's list initializes the weights of its modules.
        self.decoders = ModuleList(
            GreenMIMNeck(
                c * t,
                embed_dims,
                num_heads=num_heads,
                out_channels=out,
                class_token=False,
                **kwargs)
            for c, t, out in zip(in_channels, tokens, out_channels))

    def predict(self, stages: Sequence[Tensor],
                mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """See :meth:`StageNeck.predict`."""
        preds = [
            decoder(x_BKTC.flatten(2), mask)
            for decoder, x_BKTC in zip(self.decoders, stages)
        ]
        return torch.cat(preds, dim=2)


def _check_length(name: str, values: Sequence[int],
                  in_channels: Sequence[int]) -> None:
    if len(values) != len(in_channels):
        raise ValueError(
            f'expected {name} for each of {len(in_channels)} stages, as '
            f'in_channels={list(in_channels)}, got {list(values)}')
