# Copyright (c) greenmim authors. All rights reserved.
"""CMT, dense and computing visible mask units only.

Section numbers refer to `CMT: Convolutional Neural Networks Meet Vision
Transformers <https://arxiv.org/abs/2107.06263>`_. ``x_BCHW`` is a map,
``x_BKTC`` are unit-major tokens; the letters are defined in
:mod:`greenmim.ops`.
"""
import re
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.drop import build_dropout
from mmcv.cnn.bricks.transformer import PatchEmbed
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import Halo, MaskPlan, overlapping_conv, patches_of_units
from greenmim.ops.mask_unit import Grid
from greenmim.registry import MODELS
from ..visible import (CompileBlocks, Compiled, Divisors, Pyramid,
                       VisibleBackbone, arch_settings, check_last_stage,
                       conv_in_units, depthwise_tokens, draw_drop_paths, drop,
                       linear_tokens, norm_tokens, run_block, tokens_to_map)


class IRFFN(BaseModule):
    """Inverted residual feed-forward network (section 3.4)."""

    def __init__(self, embed_dims: int, hidden_dims: int, drop_rate: float,
                 norm_cfg: dict) -> None:
        super().__init__()
        self.conv1: Any = nn.Sequential(
            nn.Conv2d(embed_dims, hidden_dims, 1), nn.GELU(),
            build_norm_layer(norm_cfg, hidden_dims)[1])
        self.proj = nn.Conv2d(
            hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims)
        self.proj_bn = build_norm_layer(norm_cfg, hidden_dims)[1]
        self.conv2: Any = nn.Sequential(
            nn.Conv2d(hidden_dims, embed_dims, 1),
            build_norm_layer(norm_cfg, embed_dims)[1])
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Dense, (B, C, H, W)."""
        x = self.drop(self.conv1(x_BCHW))
        x = self.proj_bn(F.gelu(self.proj(x) + x))
        return self.drop(self.conv2(x))

    def forward_visible(self, x_BKTC: Tensor, halo: Halo) -> Tensor:
        """Visible tokens only, (B, K, T, C)."""
        x = F.gelu(linear_tokens(self.conv1[0], x_BKTC))
        x = self.drop(norm_tokens(self.conv1[2], x))
        x = F.gelu(depthwise_tokens(self.proj, x, halo) + x)
        x = norm_tokens(self.proj_bn, x)
        x = norm_tokens(self.conv2[1], linear_tokens(self.conv2[0], x))
        return self.drop(x)


class LightweightAttention(BaseModule):
    """Attention to sub-sampled keys, with a bias (section 3.3).

    A depthwise convolution of kernel and stride ``sr_ratio`` sub-samples.
    """

    def __init__(self, embed_dims: int, num_heads: int, sr_ratio: int,
                 qkv_bias: bool, attn_drop_rate: float, drop_rate: float,
                 norm_cfg: dict) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.q = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.k = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.v = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        if sr_ratio > 1:
            self.sr: Any = nn.Sequential(
                nn.Conv2d(
                    embed_dims,
                    embed_dims,
                    sr_ratio,
                    stride=sr_ratio,
                    groups=embed_dims),
                build_norm_layer(norm_cfg, embed_dims)[1])
        self.attn_drop_rate = attn_drop_rate
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, hw_shape: Tuple[int, int],
                bias: Tensor) -> Tensor:
        """Dense, (B, H * W, C); the bias is (1, h, H * W, keys)."""
        reduced = x
        if self.sr_ratio > 1:
            maps = tokens_to_map(x, hw_shape)
            reduced = self.sr(maps).flatten(2).transpose(1, 2)
        return self.attend(x, reduced, bias)

    def forward_visible(self, x_BKTC: Tensor, bias: Tensor) -> Tensor:
        """Visible tokens only, (B, K, T, C); bias (M, h, K * T, keys)."""
        reduced = x_BKTC
        if self.sr_ratio > 1:
            conv, norm = self.sr
            B, K, T, C = x_BKTC.shape
            size = self.sr_ratio
            side = round(T**0.5) // size
            x = x_BKTC.view(B, K, side, size, side, size, C)
            # (B, K, side, side, row, column, C), a product for each channel
            x = (x.transpose(3, 4) * conv.weight.permute(1, 2, 3, 0)).sum(
                (4, 5))
            x = x.flatten(2, 3) + conv.bias
            reduced = norm_tokens(norm, x)
        out = self.attend(x_BKTC.flatten(1, 2), reduced.flatten(1, 2), bias)
        return out.view(x_BKTC.shape)

    def attend(self, x: Tensor, reduced: Tensor, bias: Tensor) -> Tensor:
        """Attention of all tokens to reduced ones, (B, tokens, C)."""
        q, k, v = (layer(x).reshape(*x.shape[:2], self.num_heads,
                                    -1).transpose(1, 2)
                   for layer, x in ((self.q, x), (self.k, reduced), (self.v,
                                                                     reduced)))
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=bias.to(q.dtype),
            dropout_p=self.attn_drop_rate if self.training else 0.)
        return self.drop(self.proj(out.transpose(1, 2).flatten(2)))


class CMTBlock(BaseModule):
    """Local perception, lightweight attention, IRFFN (section 3.2)."""

    def __init__(self, embed_dims: int, num_heads: int, hidden_dims: int,
                 sr_ratio: int, qkv_bias: bool, drop_rate: float,
                 attn_drop_rate: float, drop_path_rate: float, norm_cfg: dict,
                 bn_cfg: dict) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = LightweightAttention(embed_dims, num_heads, sr_ratio,
                                         qkv_bias, attn_drop_rate, drop_rate,
                                         bn_cfg)
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = IRFFN(embed_dims, hidden_dims, drop_rate, bn_cfg)
        self.drop_path = build_dropout(
            dict(type='DropPath', drop_prob=drop_path_rate))

    def forward(self, x_BCHW: Tensor, bias: Tensor) -> Tensor:
        """Dense, (B, C, H, W)."""
        hw_shape = x_BCHW.shape[2:]
        x = self.proj(x_BCHW) + x_BCHW
        x = x.flatten(2).transpose(1, 2)
        x = x + self.drop_path(self.attn(self.norm1(x), hw_shape, bias))
        normed = tokens_to_map(self.norm2(x), hw_shape)
        x = tokens_to_map(x, hw_shape)
        return x + self.drop_path(self.mlp(normed))

    def forward_visible(self, x_BKTC: Tensor, bias: Tensor, halo: Halo,
                        divisors: Divisors) -> Tensor:
        """Visible tokens only, (B, K, T, C)."""
        x = depthwise_tokens(self.proj, x_BKTC, halo) + x_BKTC
        attended = self.attn.forward_visible(self.norm1(x), bias)
        x = x + drop(attended, divisors[0])
        hidden = self.mlp.forward_visible(self.norm2(x), halo)
        return x + drop(hidden, divisors[1])


class PositionBias(BaseModule):
    """A learned bias for each pair of a query and a sub-sampled key (CMT).

    On a map of another size the biases are interpolated, over query positions
    and over key positions. Biases of a checkpoint for another size are
    interpolated on loading.
    """

    def __init__(self, num_heads: int, hw_shape: Grid, sr_ratio: int) -> None:
        super().__init__()
        self.hw_shape = hw_shape
        self.sr_ratio = sr_ratio
        queries, keys = hw_shape[0] * hw_shape[1], self._keys(hw_shape)
        self.bias = nn.Parameter(
            torch.zeros(num_heads, queries, keys[0] * keys[1]))
        self.register_load_state_dict_pre_hook(_resize_on_loading)

    def init_weights(self) -> None:
        """Draw the biases."""
        super().init_weights()
        nn.init.trunc_normal_(self.bias, std=.02)

    def _keys(self, hw_shape: Grid) -> Grid:
        keys = hw_shape[0] // self.sr_ratio, hw_shape[1] // self.sr_ratio
        if min(keys) < 1:
            raise ValueError(
                f'expected a map of at least {self.sr_ratio} tokens a side, '
                f'the sub-sampling of its keys, got {tuple(hw_shape)}; '
                'enlarge the image')
        return keys

    def forward(self, hw_shape: Grid) -> Tensor:
        """The bias of a map, (1, h, queries, keys)."""
        hw_shape = hw_shape[0], hw_shape[1]
        bias: Tensor = self.bias
        if hw_shape != self.hw_shape:
            keys = self._keys(hw_shape)
            bias = _resize(bias, self.hw_shape, self._keys(self.hw_shape),
                           hw_shape, keys)
        return bias[None]

    def of_units(self, units: Tensor, grid: Grid, side: int) -> Tensor:
        """The bias of the visible tokens, in unit-major order.

        Returns:
            Tensor: Shape (M, h, K * T, K * keys of a unit).
        """
        small = side // self.sr_ratio
        bias = self((grid[0] * side, grid[1] * side))[0]
        bias = bias.view(-1, grid[0], side, grid[1], side, grid[0], small,
                         grid[1], small)
        # (Gh, Gw, Gh, Gw, h, y, x, y of key, x of key)
        bias = bias.permute(1, 3, 5, 7, 0, 2, 4, 6, 8)
        bias = bias.reshape(grid[0] * grid[1], grid[0] * grid[1],
                            len(self.bias), side * side, small * small)
        # (L, L, h, T, keys) -> (M, K, K, h, T, keys) -> (M, h, K, T, K, keys)
        bias = bias[units[:, :, None], units[:, None, :]]
        bias = bias.permute(0, 3, 1, 4, 2, 5)
        return bias.flatten(4, 5).flatten(2, 3)


def _resize_on_loading(module: PositionBias, state_dict: Dict[str, Tensor],
                       prefix: str, *args: Any) -> None:
    """Fit the bias of a checkpoint for another size of square images."""
    bias, own = state_dict.get(f'{prefix}bias'), module.bias
    if bias is None or bias.ndim != 3 or bias.shape == own.shape:
        return
    side, small = (round(size**0.5) for size in bias.shape[1:])
    if (side**2, small**2) == bias.shape[1:]:
        state_dict[f'{prefix}bias'] = _resize(bias, (side, side),
                                              (small, small), module.hw_shape,
                                              module._keys(module.hw_shape))


def _resize(bias: Tensor, queries: Grid, keys: Grid, new_queries: Grid,
            new_keys: Grid) -> Tensor:
    """Interpolate (h, queries, keys), each a map in row-major order."""
    for old, new in ((keys, new_keys), (queries, new_queries)):
        heads, first, second = bias.shape
        maps = bias.reshape(1, heads * first, *old)
        maps = F.interpolate(maps, new, mode='bicubic', align_corners=False)
        bias = maps.view(heads, first, -1).transpose(1, 2)
    return bias


@MODELS.register_module()
class CMT(Pyramid, BaseModule):
    """CMT as FastMIM pre-trains it.

    An implementation of `CMT: Convolutional Neural Networks Meet Vision
    Transformers <https://arxiv.org/abs/2107.06263>`_. A stem of three 3x3
    convolutions, then stages of a 2x2 patch embedding and blocks: a depthwise
    convolution, attention to sub-sampled keys with a learned bias for every
    pair of positions, and an inverted residual feed-forward network.

    The biases belong to a size of image: other sizes interpolate them.

    Args:
        arch (str | dict): ``'small'``, or a dict with the number
            ``stem_channels`` and lists with a value for each stage:

            - embed_dims: Channels.
            - depths: Blocks.
            - num_heads: Attention heads.
            - mlp_ratios: Hidden channels of the FFN relative to the channels.
            - sr_ratios: Kernel and stride of the sub-sampling, 1 for none.

            Defaults to ``'small'``.
        img_size (int | tuple[int, int]): Height and width of the images that
            the position biases are made for. Defaults to 224.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages that are returned, each with a norm
            of its own. Defaults to ``(3, )``.
        qkv_bias (bool): Whether queries, keys and values have a bias.
            Defaults to True.
        drop_rate (float): Dropout of projections. Defaults to 0.
        attn_drop_rate (float): Dropout of attention weights. Defaults to 0.
        drop_path_rate (float): Stochastic depth of the last block; the rate
            grows linearly from 0 at the first. Defaults to 0.
        norm_cfg (dict): Layer norms of blocks and outputs.
            Defaults to ``dict(type='LN', eps=1e-6)``.
        patch_norm_cfg (dict): Layer norms of patch embeddings.
            Defaults to ``dict(type='LN', eps=1e-5)``.
        bn_cfg (dict): Batch norms. Defaults to ``dict(type='BN')``.
        with_cp (bool): Trade time for memory: checkpoint every block. The
            second forward moves the running statistics once more.
            Defaults to False.
        frozen_stages (int): Stages up to this one, counted from 0 (with the
            stem), are not trained. Defaults to -1, none.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None, as CMT: truncated normal for linear layers.

    Raises:
        ValueError: If ``arch`` or ``out_indices`` is none of these.
    """

    arch_zoo: Dict[str, Dict[str, Any]] = {
        'small':
        dict(
            stem_channels=32,
            embed_dims=[64, 128, 256, 512],
            depths=[3, 3, 16, 3],
            num_heads=[1, 2, 4, 8],
            mlp_ratios=[4, 4, 4, 4],
            sr_ratios=[8, 4, 2, 1])
    }

    def __init__(self,
                 arch: Union[str, Dict[str, Any]] = 'small',
                 img_size: Union[int, Tuple[int, int]] = 224,
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (3, ),
                 qkv_bias: bool = True,
                 drop_rate: float = 0.,
                 attn_drop_rate: float = 0.,
                 drop_path_rate: float = 0.,
                 norm_cfg: dict = dict(type='LN', eps=1e-6),
                 patch_norm_cfg: dict = dict(type='LN', eps=1e-5),
                 bn_cfg: dict = dict(type='BN'),
                 with_cp: bool = False,
                 frozen_stages: int = -1,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        if init_cfg is None:
            init_cfg = [
                dict(type='TruncNormal', layer='Linear', std=.02, bias=0.),
                dict(type='Constant', layer='LayerNorm', val=1., bias=0.)
            ]
        super().__init__(init_cfg)
        settings = arch_settings(arch, self.arch_zoo)
        self.embed_dims = settings['embed_dims']
        self.depths = settings['depths']
        self.sr_ratios = settings['sr_ratios']
        self.out_indices = tuple(out_indices)
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        if not set(self.out_indices) <= set(range(len(self.depths))):
            raise ValueError(f'expected out_indices of {len(self.depths)} '
                             f'stages, got {self.out_indices}')

        width = settings['stem_channels']
        layers: List[nn.Module] = []
        for i in range(3):
            layers += [
                nn.Conv2d(
                    width if i else in_channels,
                    width,
                    3,
                    stride=1 if i else 2,
                    padding=1),
                nn.GELU(),
                build_norm_layer(bn_cfg, width)[1]
            ]
        self.stem: Any = nn.Sequential(*layers)

        rates = np.linspace(0, drop_path_rate, sum(self.depths)).tolist()
        if isinstance(img_size, int):
            img_size = (img_size, img_size)
        height, width_of_map = ((side + 1) // 2 for side in img_size)
        self.patch_embeds = ModuleList()
        self.position_biases = ModuleList()
        self.stages = ModuleList()
        for i, embed_dims in enumerate(self.embed_dims):
            height, width_of_map = height // 2, width_of_map // 2
            heads = settings['num_heads'][i]
            self.patch_embeds.append(
                PatchEmbed(
                    in_channels=self.embed_dims[i - 1] if i else width,
                    embed_dims=embed_dims,
                    kernel_size=2,
                    stride=2,
                    padding=0,
                    norm_cfg=patch_norm_cfg))
            self.position_biases.append(
                PositionBias(heads, (height, width_of_map), self.sr_ratios[i]))
            self.stages.append(
                ModuleList([
                    CMTBlock(
                        embed_dims,
                        heads,
                        settings['mlp_ratios'][i] * embed_dims,
                        self.sr_ratios[i],
                        qkv_bias=qkv_bias,
                        drop_rate=drop_rate,
                        attn_drop_rate=attn_drop_rate,
                        drop_path_rate=rates.pop(0),
                        norm_cfg=norm_cfg,
                        bn_cfg=bn_cfg) for _ in range(self.depths[i])
                ]))
            if i in self.out_indices:
                self.add_module(f'norm{i}',
                                build_norm_layer(norm_cfg, embed_dims)[1])
        self.freeze()

    def frozen_modules(self) -> Iterator[nn.Module]:
        if self.frozen_stages >= 0:
            yield self.stem
        yield from super().frozen_modules()

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> Tuple[int, int]:
        """Stem and position biases count as patch embeddings."""
        name = re.sub(r'^stem\.\d+\.', 'patch_embeds.0.',
                      param_name[len(prefix):])
        name = re.sub('^position_biases', 'patch_embeds', name)
        return super().get_layer_depth(prefix + name, prefix)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Feature maps (B, C, H, W) of the stages in ``out_indices``."""
        outs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x, hw_shape = self.patch_embeds[i](x)
            bias = self.position_biases[i](hw_shape)
            x = tokens_to_map(x, hw_shape)
            for block in stage:
                x = run_block(self.with_cp, block, x, bias)
            if i in self.out_indices:
                norm = getattr(self, f'norm{i}')
                out = norm(x.flatten(2).transpose(1, 2))
                outs.append(tokens_to_map(out, hw_shape).contiguous())
        return tuple(outs)


@MODELS.register_module()
class GreenMIMCMT(VisibleBackbone, CMT):
    """CMT that computes visible mask units only.

    Without a mask it is :class:`CMT`, whose arguments, parameters, names and
    shapes it has. With a mask, attention is among visible tokens; the 3x3
    convolutions see zeros instead of masked pixels and tokens; and batch norms
    take their statistics from visible tokens.

    Args:
        compile_blocks (bool | str): Compile the blocks of the masked forward
            by ``torch.compile``, a function for each stage; a string is its
            mode. Defaults to False.
        **kwargs: Arguments of :class:`CMT`.
    """

    def __init__(self,
                 *args: Any,
                 compile_blocks: CompileBlocks = False,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._run_block = Compiled.of_stages(CMTBlock.forward_visible,
                                             len(self.depths), compile_blocks)

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        return 2**(1 + len(self.depths))

    @property
    def reads_map_size(self) -> bool:
        """Whether the biases are resized to the map."""
        return True

    def forward_visible(self, images_BCHW: Tensor,
                        plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i)."""
        layout, device = plan.layout, images_BCHW.device
        units = layout.units.to(device, non_blocking=True)
        side = self.unit_size
        x_BKTC = patches_of_units(images_BCHW, units, side, 1)  # pixels
        for i in range(0, len(self.stem), 3):
            conv, _, norm = self.stem[i:i + 3]
            halo = Halo.from_layout(layout, side, 1, device)
            x_BKTC = overlapping_conv(x_BKTC, halo, conv.weight, conv.bias,
                                      conv.stride[0])
            x_BKTC = norm_tokens(norm, F.gelu(x_BKTC))
            side //= conv.stride[0]
        outs = []
        for i, stage in enumerate(self.stages):
            embed = self.patch_embeds[i]
            x_BKTC = embed.norm(conv_in_units(embed.projection, x_BKTC))
            side //= 2
            bias = self.position_biases[i].of_units(units, layout.grid, side)
            halo = Halo.from_layout(layout, side, 1, device)
            dropped = draw_drop_paths([(block.drop_path, ) * 2
                                       for block in stage], x_BKTC)
            for block, divisors in zip(stage, dropped):
                x_BKTC = run_block(self.with_cp, self._run_block[i], block,
                                   x_BKTC, bias, halo, divisors)
            normed = i in self.out_indices
            outs.append(
                getattr(self, f'norm{i}')(x_BKTC) if normed else x_BKTC)
        return outs

    def check_masked(self) -> None:
        """Refuse sub-sampling that reads beyond a mask unit."""
        check_last_stage(self.out_indices, len(self.depths) - 1)
        side = self.unit_size // 2
        for ratio in self.sr_ratios:
            side //= 2
            if side % ratio:
                raise ValueError(
                    'expected sr_ratios that divide the tokens along the '
                    f'side of a mask unit, {side} in a stage, for a masked '
                    f'forward, got {ratio}')
