# Copyright (c) greenmim authors. All rights reserved.
"""HiViT: layouts and settings."""
import re
from typing import Any, Dict, Optional, Sequence

from greenmim.models import GreenMIMHiViT
from .family import Family, norm_config, shape_of
from .layouts import Layout, Tensors
from .vit import HEAD_DIMS


class HiViT(Family):
    """HiViT, whose blocks are numbered through all stages."""
    name = 'hivit'
    types = ('mmpretrain.HiViT', 'greenmim.GreenMIMHiViT')
    cls = GreenMIMHiViT
    maps_type = 'greenmim.GreenMIMHiViT'  # MMPretrain's has one map
    layouts = {
        'openmmlab': Layout(),
        'mmdet': Layout(),
    }
    pattern = r'^blocks\.\d+\.reduction\.weight$'
    hints = ('num_heads', 'img_size')

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       num_heads: Optional[int] = None,
                       img_size: Any = None,
                       **hints: Any) -> Dict[str, Any]:
        """Without hints, heads have 64 channels and images are square."""
        channels, in_channels, kernel, _ = shape_of(tensors,
                                                    'patch_embed.proj.weight',
                                                    4)
        merges = [-1] + sorted(
            int(match[1]) for match in
            (re.match(self.pattern.replace(r'\d+', r'(\d+)'), name)
             for name in tensors) if match)
        numbers = (re.match(r'blocks\.(\d+)\.', name) for name in tensors)
        end = 1 + max(int(match[1]) for match in numbers if match)
        inner = 2**(len(merges) - 1)
        dims = channels * inner
        # Blocks before the last stage count twice, see HiViT's constructor.
        depths = [(b - a - 1) // 2 for a, b in zip(merges, merges[1:])]
        depths.append(end - merges[-1] - 1)
        first = f'blocks.{merges[-1] + 1}.'
        main, _ = shape_of(tensors, f'{first}mlp.fc1.weight', 2)
        stem, _ = shape_of(tensors, 'blocks.0.mlp.fc1.weight', 2)
        table = tensors.get(f'{first}attn.relative_position_bias_table')
        heads = num_heads or max(1, dims // HEAD_DIMS)
        side = 0
        if table is not None:
            heads, side = table.shape[1], (round(len(table)**0.5) + 1) // 2
        if not isinstance(heads, int) or dims % heads:
            raise ValueError(f'expected heads that divide the {dims} '
                             f'channels, got {heads}; pass --num-heads')
        if 'pos_embed' in tensors:
            side = round(shape_of(tensors, 'pos_embed', 3)[1]**0.5)
        patch_size = kernel * inner
        norm = dict(norm_cfg=norm_config(norm_eps)) if norm_eps else {}
        return dict(
            norm,
            arch=dict(embed_dims=dims, depths=depths, num_heads=heads),
            img_size=img_size or side * patch_size or 224,
            patch_size=patch_size,
            inner_patches=inner,
            in_chans=in_channels,
            stem_mlp_ratio=stem / channels,
            mlp_ratio=main / dims,
            qkv_bias=f'{first}attn.qkv.bias' in tensors,
            ape='pos_embed' in tensors,
            rpe=table is not None,
            patch_norm='patch_embed.norm.weight' in tensors,
            layer_scale_init_value=0.1 if f'{first}gamma_1' in tensors else 0.,
            out_indices=[depths[-1] - 1])

    def hints_from(self, model: Any) -> Dict[str, Any]:
        rows, cols = model.patch_embed.img_size
        return dict(
            num_heads=model.num_heads,
            img_size=rows if rows == cols else [rows, cols])

    def adapt(self, settings: Dict[str, Any], windows: Sequence[int],
              maps: bool) -> Dict[str, Any]:
        """With ``maps``, those of all stages, by this project's class."""
        if not maps:
            return settings
        return dict(settings, out_indices=self.build(settings).stage_ends)
