# Copyright (c) greenmim authors. All rights reserved.
"""CMT, dense and computing visible mask units only."""
import re
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.transformer import PatchEmbed
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import Halo, MaskPlan, overlapping_conv, patches_of_units
from greenmim.registry import MODELS
from ..visible import (CMTBlock, PositionBias, Pyramid, VisibleBackbone,
                       conv_in_units, norm_tokens)


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
        out_indices (Sequence[int]): Stages that are put out, each with a norm
            of its own. Defaults to ``(3, )``.
        qkv_bias (bool): Whether queries, keys and values have a bias.
            Defaults to True.
        drop_rate (float): Dropout of projections. Defaults to 0.
        attn_drop_rate (float): Dropout of attention weights. Defaults to 0.
        drop_path_rate (float): Stochastic depth of the last block; that of
            the others grows linearly from 0. Defaults to 0.
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
        settings = self._settings(arch)
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

        rates = [
            drop_path_rate * i / max(1,
                                     sum(self.depths) - 1)
            for i in range(sum(self.depths))
        ]
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

    def _settings(self, arch: Union[str, Dict[str, Any]]) -> Dict[str, Any]:
        """The channels of the stem, and lists with a value a stage."""
        if isinstance(arch, str):
            if arch not in self.arch_zoo:
                raise ValueError(f'expected arch to be one of '
                                 f'{list(self.arch_zoo)} or a dict, got '
                                 f'{arch!r}')
            return self.arch_zoo[arch]
        keys = self.arch_zoo['small'].keys()
        lengths = {len(v) for v in arch.values() if isinstance(v, list)}
        if arch.keys() != keys or len(lengths) != 1:
            raise ValueError(f'expected an arch with the keys {list(keys)} '
                             f'and lists of one length, got {arch}')
        return arch

    def _frozen_modules(self) -> Iterator[nn.Module]:
        if self.frozen_stages >= 0:
            yield self.stem
        yield from super()._frozen_modules()

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> Tuple[int, int]:
        """The stem counts as the first patch embedding, biases as theirs."""
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
            x = x.transpose(1, 2).unflatten(2, hw_shape)
            for block in stage:
                x = self.run_block(block, x, bias)
            if i in self.out_indices:
                norm = getattr(self, f'norm{i}')
                out = norm(x.flatten(2).transpose(1, 2)).transpose(1, 2)
                outs.append(out.unflatten(2, hw_shape).contiguous())
        return tuple(outs)


@MODELS.register_module()
class GreenMIMCMT(VisibleBackbone, CMT):  # type: ignore[misc]
    """CMT that computes visible mask units only.

    Without a mask it is :class:`CMT`, whose parameters, names and shapes it
    has. With a mask, attention is among visible tokens; the 3x3 convolutions
    take masked pixels and tokens for zeros; and the statistics of batch norms
    are those of the visible tokens. The arguments are those of :class:`CMT`.
    """

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        return 2**(1 + len(self.depths))

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.stem[0].in_channels

    @property
    def reads_map_size(self) -> bool:
        """Whether the biases are resized to the map."""
        return True

    def forward_visible(self, x: Tensor, plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i)."""
        layout = plan.layout
        units = layout.units.to(x.device, non_blocking=True)
        side = self.unit_size
        x = patches_of_units(x, units, side, 1)  # pixels
        for i in range(0, len(self.stem), 3):
            conv, _, norm = self.stem[i:i + 3]
            halo = Halo.from_layout(layout, side, 1, x.device)
            x = overlapping_conv(x, halo, conv.weight, conv.bias,
                                 conv.stride[0])
            x = norm_tokens(norm, F.gelu(x))
            side //= conv.stride[0]
        outs = []
        for i, stage in enumerate(self.stages):
            embed = self.patch_embeds[i]
            x = embed.norm(conv_in_units(embed.projection, x))
            side //= 2
            bias = self.position_biases[i].of_units(units, layout.grid, side)
            halo = Halo.from_layout(layout, side, 1, x.device)
            for block in stage:
                x = self.run_block(block.forward_visible, x, bias, halo)
            normed = i in self.out_indices
            outs.append(getattr(self, f'norm{i}')(x) if normed else x)
        return outs

    def check_masked(self) -> None:
        """Refuse sub-sampling that reads beyond a mask unit."""
        last = len(self.depths) - 1
        if last not in self.out_indices:
            raise ValueError('expected the last stage in out_indices, got '
                             f'out_indices={self.out_indices}')
        side = self.unit_size // 2
        for ratio in self.sr_ratios:
            side //= 2
            if side % ratio:
                raise ValueError(
                    'expected sr_ratios that divide the tokens along the '
                    f'side of a mask unit, {side} in a stage, for a masked '
                    f'forward, got {ratio}')
