# Copyright (c) greenmim authors. All rights reserved.
"""A convolutional decoder.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import Any, Optional

from mmpretrain.models.backbones.convnext import ConvNeXtBlock
from torch import Tensor, nn

from greenmim.ops import VisibleLayout
from greenmim.registry import MODELS
from .greenmim_neck import GreenMIMNeck


@MODELS.register_module()
class ConvNeck(GreenMIMNeck):
    """A light convolutional decoder on the grid of units.

    Like :class:`GreenMIMNeck`, with ConvNeXt blocks in place of positions and
    transformer blocks. Its cost grows linearly with the number of units.

    Args:
        depth (int): Number of blocks. Defaults to 1.
        mlp_ratio (float): Hidden channels of a block in multiples of
            ``embed_dims``. Defaults to 4.
        kernel_size (int): Side of the depthwise convolutions in units, odd.
            Defaults to 7.
        **kwargs: ``in_channels``, ``embed_dims``, ``out_channels``,
            ``norm_cfg``, ``mask_token`` and ``init_cfg`` of
            :class:`GreenMIMNeck`. Its other options are refused.

    Raises:
        ValueError: If ``kernel_size`` is even.
    """

    def __init__(self,
                 depth: int = 1,
                 mlp_ratio: float = 4.,
                 kernel_size: int = 7,
                 **kwargs: Any) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f'expected an odd kernel_size, got {kernel_size}')
        super().__init__(
            depth=0, num_heads=1, pos_embed=False, class_token=False, **kwargs)
        self.conv_blocks = nn.Sequential(*[
            ConvNeXtBlock(
                self.embed_dims,
                dw_conv_cfg=dict(
                    kernel_size=kernel_size, padding=kernel_size // 2),
                mlp_ratio=mlp_ratio,
                layer_scale_init_value=0.) for _ in range(depth)
        ])

    def run_blocks(self,
                   x_BLC: Tensor,
                   layout: VisibleLayout,
                   class_token: Optional[Tensor] = None) -> Tensor:
        """Run the convolutions on the grid of units."""
        x_BCHW = x_BLC.transpose(1, 2).unflatten(2, layout.grid)
        valid = layout.valid
        if valid is not None:
            valid = valid[:, None].to(x_BCHW.device, non_blocking=True)
        for block in self.conv_blocks:
            # Padding is zero, as is what lies beyond the map.
            x_BCHW = block(x_BCHW if valid is None else x_BCHW * valid)
        return x_BCHW.flatten(2).transpose(1, 2)
