# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer: layouts, settings and windows."""
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

from greenmim.models import GreenMIMSwinTransformer
from greenmim.models.backbones.swin import resize_bias_table
from .family import Family, norm_config, shape_of, stage_depths
from .layouts import Layout, Renames, Tensors

BLOCKS: Renames = (
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('patch_embed.norm.', 'patch_embed.norm.'),
    ('layers.{i}.blocks.{j}.attn.', 'stages.{i}.blocks.{j}.attn.w_msa.'),
    ('layers.{i}.blocks.{j}.mlp.fc1.',
     'stages.{i}.blocks.{j}.ffn.layers.0.0.'),
    ('layers.{i}.blocks.{j}.mlp.fc2.', 'stages.{i}.blocks.{j}.ffn.layers.1.'),
    ('layers.{i}.blocks.{j}.norm1.', 'stages.{i}.blocks.{j}.norm1.'),
    ('layers.{i}.blocks.{j}.norm2.', 'stages.{i}.blocks.{j}.norm2.'),
    ('norm.', 'norm{last}.'),
)
_MICROSOFT = BLOCKS + (
    ('layers.{i}.downsample.', 'stages.{i}.downsample.'),
    ('absolute_pos_embed', 'absolute_pos_embed'),
)
# timm merges at the beginning of a stage, the others at the end of the
# previous stage.
OLDER_TIMM = r'^layers\.0\.downsample\.'  # before 0.9, at the end
_TIMM = BLOCKS + (('layers.{i+1}.downsample.', 'stages.{i}.downsample.'), )

_HF_BLOCK = 'encoder.layers.{i}.blocks.{j}.'
_OUR_BLOCK = 'stages.{i}.blocks.{j}.'
# Those of both versions, in Hugging Face's transformers.
TRANSFORMERS: Renames = (
    ('embeddings.patch_embeddings.projection.', 'patch_embed.projection.'),
    ('embeddings.norm.', 'patch_embed.norm.'),
    ('embeddings.position_embeddings', 'absolute_pos_embed'),
    ('embeddings.mask_token', 'mask_token'),
    *((_HF_BLOCK + theirs, _OUR_BLOCK + ours) for theirs, ours in (
        ('attention.self.query.weight', 'attn.w_msa.q.weight'),
        ('attention.self.key.weight', 'attn.w_msa.k.weight'),
        ('attention.self.value.weight', 'attn.w_msa.v.weight'),
        ('attention.output.dense.', 'attn.w_msa.proj.'),
        ('layernorm_before.', 'norm1.'),
        ('layernorm_after.', 'norm2.'),
        ('intermediate.dense.', 'ffn.layers.0.0.'),
        ('output.dense.', 'ffn.layers.1.'),
    )),
    ('layernorm.', 'norm{last}.'),
)  # yapf: disable
_TRANSFORMERS = TRANSFORMERS + (
    *((_HF_BLOCK + theirs, _OUR_BLOCK + ours) for theirs, ours in (
        ('attention.self.query.bias', 'attn.w_msa.q.bias'),
        ('attention.self.key.bias', 'attn.w_msa.k.bias'),
        ('attention.self.value.bias', 'attn.w_msa.v.bias'),
        ('attention.self.relative', 'attn.w_msa.relative'),
    )),
    ('encoder.layers.{i}.downsample.', 'stages.{i}.downsample.'),
)  # yapf: disable

TABLE = 'attn.w_msa.relative_position_bias_table'


class Swin(Family):
    """Swin Transformer, the first version."""
    name = 'swin'
    types = ('mmpretrain.SwinTransformer', 'greenmim.GreenMIMSwinTransformer')
    cls = GreenMIMSwinTransformer
    layouts = {
        'openmmlab':
        Layout(),
        'mmdet':
        Layout(),
        'swin':
        Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
        'simmim':
        Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
        'fastmim':
        Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
        'greenmim':
        Layout(_MICROSOFT, 'microsoft', norm_eps=1e-6),
        'greenmim-2022':
        Layout(_MICROSOFT, 'greenmim-2022', norm_eps=1e-6),
        'timm':
        Layout(
            _TIMM,
            'microsoft', ('relative_position_index', ),
            older=(OLDER_TIMM, _MICROSOFT)),
        'transformers':
        Layout(_TRANSFORMERS, 'microsoft', attention='qkv'),
    }
    pattern = r'attn\.w_msa\.relative_position_bias_table$'
    ignored = r'(^|\.)(mask_token|attn_mask)$'
    merged = r'^stages\.\d+\.downsample\.(norm|reduction)\.'
    one_window = True

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       **hints: Any) -> Dict[str, Any]:
        """Windows may differ between stages: where the window was shrunk to
        the map, the table may have the size of the shrunk window."""
        depths = self.depths(tensors)
        heads = [
            shape_of(tensors, f'stages.{i}.blocks.0.{TABLE}', 2)[1]
            for i in range(len(depths))
        ]
        windows = self.windows(tensors)
        norm = dict(norm_cfg=norm_config(norm_eps)) if norm_eps else {}
        stages = dict(block_cfgs=norm, downsample_cfg=norm) if norm else {}
        settings = self.common_settings(tensors,
                                        dict(depths=depths, num_heads=heads))
        if norm:
            settings.update(norm, patch_cfg=norm)
        if len(set(windows)) == 1:
            settings.update(window_size=windows[0], stage_cfgs=stages)
        else:
            settings.update(stage_cfgs=[
                dict(stages, block_cfgs=dict(window_size=window, **norm))
                for window in windows
            ])
        return settings

    def depths(self, tensors: Tensors) -> List[int]:
        return stage_depths(tensors, r'stages\.(\d+)\.blocks\.(\d+)\.')

    def common_settings(self, tensors: Tensors,
                        arch: Dict[str, Any]) -> Dict[str, Any]:
        """The settings that both versions read from the same tensors."""
        embed_dims, in_channels, patch_size, _ = shape_of(
            tensors, 'patch_embed.projection.weight', 4)
        last = len(arch['depths']) - 1
        settings: Dict[str, Any] = dict(
            arch=dict(embed_dims=embed_dims, **arch),
            in_channels=in_channels,
            patch_size=patch_size,
            out_indices=[
                i for i in range(last + 1)
                if i == last or f'norm{i}.weight' in tensors
            ])
        if 'absolute_pos_embed' in tensors:
            side = round(tensors['absolute_pos_embed'].shape[1]**0.5)
            settings.update(use_abs_pos_embed=True, img_size=side * patch_size)
        return settings

    def windows(self, tensors: Tensors) -> List[int]:
        sides = (
            shape_of(tensors, f'stages.{i}.blocks.0.{TABLE}', 2)[0]**0.5
            for i in range(len(self.depths(tensors))))
        return [(round(side) + 1) // 2 for side in sides]

    def resize_tables(
            self, tensors: Tensors,
            windows: Sequence[int]) -> Tuple[Tensors, Tuple[str, ...]]:
        resized = {}
        for name, table in tensors.items():
            match = re.match(rf'stages\.(\d+)\..*{re.escape(TABLE)}$', name)
            if match:
                new = resize_bias_table(table, windows[int(match[1])])
                if new is not table:
                    resized[name] = new
        return {**tensors, **resized}, tuple(resized)

    def timm_model(self, settings: Dict[str, Any], img_size: Any,
                   windows: Sequence[int]) -> Tuple[str, Dict[str, Any]]:
        return 'swin_transformer.SwinTransformer', dict(
            img_size=img_size,
            patch_size=settings['patch_size'],
            in_chans=settings['in_channels'],
            embed_dim=settings['arch']['embed_dims'],
            depths=settings['arch']['depths'],
            num_heads=settings['arch']['num_heads'],
            window_size=list(windows))

    def transformers_model(self, settings: Dict[str, Any], img_size: Any,
                           norm_eps: Optional[float],
                           windows: Sequence[int]) -> Dict[str, Any]:
        arch = settings['arch']
        return dict(
            architectures=['SwinModel'],
            model_type='swin',
            image_size=img_size,
            patch_size=settings['patch_size'],
            num_channels=settings['in_channels'],
            embed_dim=arch['embed_dims'],
            depths=arch['depths'],
            num_heads=arch['num_heads'],
            window_size=max(windows),
            use_absolute_embeddings=settings.get('use_abs_pos_embed', False),
            encoder_stride=settings['patch_size'] *
            2**(len(arch['depths']) - 1),
            layer_norm_eps=norm_eps or 1e-5)

    def eps_from_transformers(self, config: Dict[str, Any]) -> Optional[float]:
        """Its patch embedding and merging have 1e-5, whatever the config
        says."""
        eps = config.get('layer_norm_eps', 1e-5)
        return eps if eps == 1e-5 else None
