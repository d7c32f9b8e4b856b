# Copyright (c) greenmim authors. All rights reserved.
"""PVT v2, dense and computing visible mask units only.

``x_BKTC`` are unit-major tokens; the letters are defined in
:mod:`greenmim.ops`.
"""
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks.drop import build_dropout
from mmcv.cnn.bricks.transformer import PatchEmbed
from mmengine.model import (BaseModule, ModuleList, constant_init, normal_init,
                            trunc_normal_init)
from mmpretrain.models.backbones.twins import GlobalSubsampledAttention
from torch import Tensor, nn

from greenmim.ops import Halo, MaskPlan, overlapping_conv, patches_of_units
from greenmim.registry import MODELS
from ..visible import (CompileBlocks, Compiled, Divisors, Pyramid,
                       VisibleBackbone, arch_settings, check_in_units,
                       depthwise_tokens, draw_drop_paths, drop, run_block,
                       tokens_to_map, visible_reduced_attention)


class ConvFFN(BaseModule):
    """Feed-forward network with a depthwise 3x3 convolution (section 3.2)."""

    def __init__(self, embed_dims: int, feedforward_channels: int,
                 act_cfg: dict, drop_rate: float,
                 drop_path_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, feedforward_channels)
        self.dwconv = nn.Conv2d(
            feedforward_channels,
            feedforward_channels,
            3,
            padding=1,
            groups=feedforward_channels)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Linear(feedforward_channels, embed_dims)
        self.drop = nn.Dropout(drop_rate)
        self.out_drop = build_dropout(
            dict(type='DropPath', drop_prob=drop_path_rate))

    def forward(self, x: Tensor, hw_shape: Tuple[int, int]) -> Tensor:
        """Dense, (B, H * W, C)."""
        x = self.fc1(x)
        x = tokens_to_map(x, hw_shape)
        x = self.dwconv(x).flatten(2).transpose(1, 2)
        return self.out_drop(self.finish(x))

    def forward_visible(self, x_BKTC: Tensor, halo: Halo) -> Tensor:
        """Visible tokens only, (B, K, T, C), before stochastic depth."""
        x = self.fc1(x_BKTC)
        return self.finish(depthwise_tokens(self.dwconv, x, halo))

    def finish(self, x: Tensor) -> Tensor:
        """What follows the convolution, token by token."""
        return self.drop(self.fc2(self.drop(self.act(x))))


class PVTv2Block(BaseModule):
    """Attention to spatially reduced keys, and a convolutional FFN."""

    def __init__(self, embed_dims: int, num_heads: int,
                 feedforward_channels: int, sr_ratio: int, qkv_bias: bool,
                 drop_rate: float, attn_drop_rate: float,
                 drop_path_rate: float, act_cfg: dict, norm_cfg: dict,
                 conv_norm_cfg: dict) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = GlobalSubsampledAttention(
            embed_dims,
            num_heads,
            norm_cfg=conv_norm_cfg,
            qkv_bias=qkv_bias,
            sr_ratio=sr_ratio,
            attn_drop=attn_drop_rate,
            proj_drop=drop_rate,
            dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate))
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.ffn = ConvFFN(embed_dims, feedforward_channels, act_cfg,
                           drop_rate, drop_path_rate)

    def forward(self, x: Tensor, hw_shape: Tuple[int, int]) -> Tensor:
        """Dense, (B, H * W, C)."""
        x = x + self.attn(self.norm1(x), hw_shape)
        return x + self.ffn(self.norm2(x), hw_shape)

    def forward_visible(self, x_BKTC: Tensor, halo: Halo,
                        divisors: Divisors) -> Tensor:
        """Visible tokens only, (B, K, T, C)."""
        attended = visible_reduced_attention(self.attn, self.norm1(x_BKTC))
        x_BKTC = x_BKTC + drop(attended, divisors[0])
        hidden = self.ffn.forward_visible(self.norm2(x_BKTC), halo)
        return x_BKTC + drop(hidden, divisors[1])


@MODELS.register_module()
class PyramidVisionTransformerV2(Pyramid, BaseModule):
    """PVT v2.

    An implementation of `PVT v2: Improved Baselines with Pyramid Vision
    Transformer <https://arxiv.org/abs/2106.13797>`_. A stage is an
    overlapping patch embedding (7x7 with stride 4, then 3x3 with stride 2),
    blocks of spatially reduced attention and convolutional feed-forward
    networks, and a norm.

    Args:
        arch (str | dict): ``'b0'`` to ``'b5'``, or a dict of lists with a
            value for each stage:

            - embed_dims: Channels.
            - depths: Blocks.
            - num_heads: Attention heads.
            - mlp_ratios: Hidden channels of the FFN relative to the channels.
            - sr_ratios: Kernel and stride of the spatial reduction, 1 for
              none.

            Defaults to ``'b2'``.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages that are returned.
            Defaults to ``(3, )``.
        qkv_bias (bool): Whether queries, keys and values have a bias.
            Defaults to True.
        drop_rate (float): Dropout of projections. Defaults to 0.
        attn_drop_rate (float): Dropout of attention weights. Defaults to 0.
        drop_path_rate (float): Stochastic depth of the last block; the rate
            grows linearly from 0 at the first. Defaults to 0.
        act_cfg (dict): Activation of the FFNs.
            Defaults to ``dict(type='GELU')``.
        norm_cfg (dict): Norms of blocks and stages.
            Defaults to ``dict(type='LN', eps=1e-6)``.
        conv_norm_cfg (dict, optional): Norms after patch embeddings and
            spatial reductions. Defaults to None, ``norm_cfg``, as in
            MMDetection; the weights of the paper's authors and of timm go
            with ``dict(type='LN', eps=1e-5)``.
        with_cp (bool): Trade time for memory: checkpoint every block.
            Defaults to False.
        frozen_stages (int): Stages up to this one, counted from 0, are not
            trained. Defaults to -1, none.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.

    Raises:
        ValueError: If ``arch`` or ``out_indices`` is none of these.
    """

    arch_zoo: Dict[str, Dict[str, List[int]]] = {
        name:
        dict(
            embed_dims=[width, 2 * width, 5 * width, 8 * width],
            depths=depths,
            num_heads=[1, 2, 5, 8],
            mlp_ratios=mlp_ratios,
            sr_ratios=[8, 4, 2, 1])
        for name, width, depths, mlp_ratios in [
            ('b0', 32, [2, 2, 2, 2], [8, 8, 4, 4]),
            ('b1', 64, [2, 2, 2, 2], [8, 8, 4, 4]),
            ('b2', 64, [3, 4, 6, 3], [8, 8, 4, 4]),
            ('b3', 64, [3, 4, 18, 3], [8, 8, 4, 4]),
            ('b4', 64, [3, 8, 27, 3], [8, 8, 4, 4]),
            ('b5', 64, [3, 6, 40, 3], [4, 4, 4, 4]),
        ]
    }

    def __init__(self,
                 arch: Union[str, Dict[str, List[int]]] = 'b2',
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (3, ),
                 qkv_bias: bool = True,
                 drop_rate: float = 0.,
                 attn_drop_rate: float = 0.,
                 drop_path_rate: float = 0.,
                 act_cfg: dict = dict(type='GELU'),
                 norm_cfg: dict = dict(type='LN', eps=1e-6),
                 conv_norm_cfg: Optional[dict] = None,
                 with_cp: bool = False,
                 frozen_stages: int = -1,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        super().__init__(init_cfg)
        settings = arch_settings(arch, self.arch_zoo)
        self.embed_dims = settings['embed_dims']
        self.depths = settings['depths']
        self.strides = [4] + [2] * (len(self.depths) - 1)
        self.out_indices = tuple(out_indices)
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        if not set(self.out_indices) <= set(range(len(self.depths))):
            raise ValueError(f'expected out_indices of {len(self.depths)} '
                             f'stages, got {self.out_indices}')

        rates = torch.linspace(
            0, drop_path_rate, sum(self.depths), device='cpu').tolist()
        conv_norm_cfg = conv_norm_cfg or norm_cfg
        self.patch_embeds = ModuleList()
        self.stages = ModuleList()
        for i, embed_dims in enumerate(self.embed_dims):
            kernel_size = 3 if i else 7
            self.patch_embeds.append(
                PatchEmbed(
                    in_channels=self.embed_dims[i - 1] if i else in_channels,
                    embed_dims=embed_dims,
                    kernel_size=kernel_size,
                    stride=self.strides[i],
                    padding=kernel_size // 2,
                    norm_cfg=conv_norm_cfg))
            self.stages.append(
                ModuleList([
                    PVTv2Block(
                        embed_dims,
                        settings['num_heads'][i],
                        settings['mlp_ratios'][i] * embed_dims,
                        settings['sr_ratios'][i],
                        qkv_bias=qkv_bias,
                        drop_rate=drop_rate,
                        attn_drop_rate=attn_drop_rate,
                        drop_path_rate=rates.pop(0),
                        act_cfg=act_cfg,
                        norm_cfg=norm_cfg,
                        conv_norm_cfg=conv_norm_cfg)
                    for _ in range(self.depths[i])
                ]))
            self.add_module(f'norm{i}',
                            build_norm_layer(norm_cfg, embed_dims)[1])
        self.freeze()

    def init_weights(self) -> None:
        """Initialise as the paper's authors do, unless by ``init_cfg``."""
        super().init_weights()
        if self.init_cfg is not None:
            return
        for m in self.modules():
            if isinstance(m, nn.Linear):
                trunc_normal_init(m, std=.02)
            elif isinstance(m, nn.LayerNorm):
                constant_init(m, 1.)
            elif isinstance(m, nn.Conv2d):
                fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
                normal_init(m, std=math.sqrt(2. * m.groups / fan_out))

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Feature maps (B, C, H, W) of the stages in ``out_indices``."""
        outs = []
        for i, (embed,
                stage) in enumerate(zip(self.patch_embeds, self.stages)):
            x, hw_shape = embed(x)
            for block in stage:
                x = run_block(self.with_cp, block, x, hw_shape)
            x = getattr(self, f'norm{i}')(x)
            x = tokens_to_map(x, hw_shape).contiguous()
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)


@MODELS.register_module()
class GreenMIMPVTv2(VisibleBackbone, PyramidVisionTransformerV2):
    """PVT v2 that computes visible mask units only.

    Without a mask it is :class:`PyramidVisionTransformerV2`, whose
    arguments, parameters, names and shapes it has. With a mask, attention is
    to the spatially reduced tokens of visible units, and convolutions that
    reach beyond a unit (in patch embeddings and FFNs) see zeros instead of
    masked pixels and tokens.

    Args:
        compile_blocks (bool | str): Compile the blocks of the masked forward
            by ``torch.compile``, a function for each stage; a string is its
            mode. Defaults to False.
        **kwargs: Arguments of :class:`PyramidVisionTransformerV2`.
    """

    def __init__(self,
                 *args: Any,
                 compile_blocks: CompileBlocks = False,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._run_block = Compiled.of_stages(PVTv2Block.forward_visible,
                                             len(self.depths), compile_blocks)

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        return math.prod(self.strides)

    def forward_visible(self, images_BCHW: Tensor,
                        plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens after its norm, (B, K, T_i, C_i)."""
        device = images_BCHW.device
        units = plan.layout.units.to(device, non_blocking=True)
        side = self.unit_size
        x_BKTC = patches_of_units(images_BCHW, units, side, 1)  # pixels
        outs = []
        for i, (embed,
                stage) in enumerate(zip(self.patch_embeds, self.stages)):
            conv = embed.projection
            halo = Halo.from_layout(plan.layout, side, conv.padding[0], device)
            x_BKTC = overlapping_conv(x_BKTC, halo, conv.weight, conv.bias,
                                      self.strides[i])
            x_BKTC = embed.norm(x_BKTC)
            side //= self.strides[i]
            halo = Halo.from_layout(plan.layout, side, 1, device)
            dropped = draw_drop_paths(
                [(block.attn.out_drop, block.ffn.out_drop) for block in stage],
                x_BKTC)
            for block, divisors in zip(stage, dropped):
                x_BKTC = run_block(self.with_cp, self._run_block[i], block,
                                   x_BKTC, halo, divisors)
            x_BKTC = getattr(self, f'norm{i}')(x_BKTC)
            outs.append(x_BKTC)
        return outs

    def check_masked(self) -> None:
        """Refuse spatial reductions that read beyond a mask unit."""
        side = self.unit_size
        for stride, stage in zip(self.strides, self.stages):
            side //= stride
            for block in stage:
                if block.attn.sr_ratio > 1:
                    check_in_units(block.attn.sr, side)
