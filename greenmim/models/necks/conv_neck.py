# Copyright (c) greenmim authors. All rights reserved.
"""A convolutional decoder.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import List, Optional, Union

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
        in_channels (int): See :class:`GreenMIMNeck`. Defaults to 1024.
        embed_dims (int): Channels of the decoder. Defaults to 512.
        depth (int): Number of blocks. Defaults to 1.
        mlp_ratio (float): Hidden channels of a block in multiples of
            ``embed_dims``. Defaults to 4.
        kernel_size (int): Side of the depthwise convolutions in units, odd.
            Defaults to 7.
        out_channels (int): See :class:`GreenMIMNeck`. Defaults to 3072.
        norm_cfg (dict): Config of the last norm.
            Defaults to ``dict(type='LN', eps=1e-6)``.
        mask_token (bool): See :class:`GreenMIMNeck`. Defaults to True.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.

    Raises:
        ValueError: If ``kernel_size`` is even.
    """

    def __init__(self,
                 in_channels: int = 1024,
                 embed_dims: int = 512,
                 depth: int = 1,
                 mlp_ratio: float = 4.,
                 kernel_size: int = 7,
                 out_channels: int = 32 * 32 * 3,
                 norm_cfg: dict = dict(type='LN', eps=1e-6),
                 mask_token: bool = True,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f'expected an odd kernel_size, got {kernel_size}')
        super().__init__(
            in_channels,
            embed_dims,
            depth=0,
            num_heads=1,
            out_channels=out_channels,
            norm_cfg=norm_cfg,
            pos_embed=False,
            mask_token=mask_token,
            init_cfg=init_cfg)
        self.conv_blocks = nn.Sequential(*[
            ConvNeXtBlock(
                embed_dims,
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
