# Copyright (c) greenmim authors. All rights reserved.
"""ViT with relative positions, as BEiT and SimMIM have it.

Its layers share one bias table in SimMIM's pre-training, and have a table
each in its fine-tuning.
"""
from typing import Any, Dict, Optional, Sequence, Tuple

from mmpretrain.models import BEiTViT

from .layouts import Layout, Renames, Tensors
from .vit import ViT

_SIMMIM: Renames = (
    ('cls_token', 'cls_token'),
    ('pos_embed', 'pos_embed'),
    ('mask_token', 'mask_token'),
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('rel_pos_bias.', 'rel_pos_bias.'),
    ('blocks.{i}.norm', 'layers.{i}.ln'),
    ('blocks.{i}.gamma_', 'layers.{i}.gamma_'),
    ('blocks.{i}.attn.', 'layers.{i}.attn.'),
    ('blocks.{i}.mlp.fc1.', 'layers.{i}.ffn.layers.0.0.'),
    ('blocks.{i}.mlp.fc2.', 'layers.{i}.ffn.layers.1.'),
    ('norm.', 'ln1.'),
    ('fc_norm.', 'ln2.'),
)
SHARED = 'rel_pos_bias.relative_position_bias_table'
OF_LAYER = 'layers.0.attn.relative_position_bias_table'
# Offsets from the class token to a patch, from a patch to it, to itself.
EXTRA_OFFSETS = 3


class BEiT(ViT):
    """BEiT, a ViT with relative positions."""
    name = 'beit'
    types = ('mmpretrain.BEiTViT', )
    cls = BEiTViT
    layouts = {
        'openmmlab': Layout(),
        'mmdet': Layout(),
        'simmim': Layout(_SIMMIM, norm_eps=1e-6),
        'timm': Layout(_SIMMIM, not_stored=('relative_position_index', )),
    }
    ignored = r'^(head|mask_token)\b'
    pattern = r'^layers\.\d+\.attn\.q_bias$'
    hints = ('final_norm', )

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       **hints: Any) -> Dict[str, Any]:
        """Heads and image size follow from the bias tables."""
        table = tensors.get(SHARED, tensors.get(OF_LAYER))
        if table is None or table.ndim != 2:
            raise ValueError(f'expected a tensor {SHARED} or {OF_LAYER} of 2 '
                             'dimensions, found none')
        offsets, num_heads = table.shape
        side = (round((offsets - EXTRA_OFFSETS)**0.5) + 1) // 2
        settings = self.layer_settings(tensors, norm_eps,
                                       **dict(hints, num_heads=num_heads))
        return dict(
            settings,
            img_size=side * settings['patch_size'],
            # Its offsets are in the tables.
            with_cls_token=True,
            use_abs_pos_emb='pos_embed' in tensors,
            use_rel_pos_bias=OF_LAYER in tensors,
            use_shared_rel_pos_bias=SHARED in tensors,
            layer_scale_init_value=0.1
            if 'layers.0.gamma_1' in tensors else 0.)

    def timm_model(self, settings: Dict[str, Any], img_size: Any,
                   windows: Sequence[int]) -> Tuple[str, Dict[str, Any]]:
        _, arguments = super().timm_model(settings, img_size, windows)
        del arguments['class_token']
        for key in ('use_abs_pos_emb', 'use_rel_pos_bias',
                    'use_shared_rel_pos_bias'):
            arguments[key] = settings[key]
        return 'beit.Beit', dict(
            arguments, use_fc_norm=arguments['global_pool'] == 'avg')
