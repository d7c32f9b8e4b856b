# Copyright (c) greenmim authors. All rights reserved.
"""A linear decoder. The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import List, Optional, Union

from torch import Tensor, nn

from greenmim.ops import VisibleLayout
from greenmim.registry import MODELS
from .base import Neck


@MODELS.register_module()
class LinearNeck(Neck):
    """Decoder of SimMIM: a linear layer from a unit's token to its values.

    It needs the tokens of all units, which the dense algorithms compute.

    Args:
        in_channels (int): Channels of the latent.
        out_channels (int): Values predicted for a unit.
            Defaults to 3072, for units of 32x32 RGB pixels.
        tokens_side (int): Tokens along the side of a unit, 2 for patches of
            16 pixels in units of 32. Each token predicts its square of the
            unit's pixels. Defaults to 1.
        unit_size (int): Side of a unit in pixels, needed with several tokens.
            Defaults to 32.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.

    Raises:
        ValueError: If ``tokens_side`` does not divide ``unit_size``, or the
            predictions do not fit their number of tokens.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int = 32 * 32 * 3,
                 tokens_side: int = 1,
                 unit_size: int = 32,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if unit_size % tokens_side or tokens_side > 1 and (out_channels %
                                                           unit_size**2):
            raise ValueError(
                'expected tokens_side to divide unit_size, whose square '
                f'divides out_channels, got {tokens_side}, {unit_size} and '
                f'{out_channels}')
        self.tokens_side = tokens_side
        self.patch_size = unit_size // tokens_side
        self.linear = nn.Linear(in_channels, out_channels // tokens_side**2)

    def forward(self, latent: Tensor, mask: Union[Tensor,
                                                  VisibleLayout]) -> Tensor:
        """Predict the values of all units.

        Args:
            latent (Tensor): Shape (B, L * T, in_channels), the tokens of all
                units, T of each.
            mask (Tensor | VisibleLayout): As of :class:`GreenMIMNeck`;
                nothing is masked.

        Returns:
            Tensor: Shape (B, L, D) for D = ``out_channels``.

        Raises:
            ValueError: If the latent lacks masked units, or has another
                number of tokens a unit.
        """
        layout = VisibleLayout.from_mask(mask)
        L = layout.num_units
        if layout.num_visible != L:
            raise ValueError(
                'expected the tokens of all units, got those of '
                f'{layout.num_visible} visible ones; use a neck with mask '
                'tokens, GreenMIMNeck for example')
        side = self.tokens_side
        if latent.shape[1] != L * side**2:
            raise ValueError(
                f'expected {L * side**2} tokens, {side}x{side} a unit, got '
                f"{latent.shape[1]}; set tokens_side of the neck to a unit's "
                "side divided by the backbone's stride")
        pred = self.linear(latent)
        if side == 1:
            return pred
        # (B, L, y, x, dy, dx * C) -> (B, L, y, dy, x, dx * C): a token's
        # square of pixels -> the unit's rows of pixels
        pred = pred.view(len(pred), L, side, side, self.patch_size, -1)
        return pred.transpose(3, 4).reshape(len(pred), L, -1)
