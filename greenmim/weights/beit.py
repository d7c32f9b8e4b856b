# Copyright (c) greenmim authors. All rights reserved.
"""ViT with relative positions, as BEiT and SimMIM have it.

Its layers share one table of biases in SimMIM's pre-training, and have one
each in its fine-tuning.
"""
from typing import Any, Dict, Optional

from mmpretrain.models import BEiTViT
from torch import nn

from .layouts import Family, Layout, Tensors
from .vit import adapt, declared_layers, settings_of_layers

_SIMMIM = (
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
# Offsets between the class token and a patch, both ways, and to itself.
EXTRA_OFFSETS = 3

LAYOUTS = {
    'openmmlab': Layout(),
    'mmdet': Layout(),
    'simmim': Layout(_SIMMIM, norm_eps=1e-6),
    'timm': Layout(_SIMMIM, without=('relative_position_index', )),
}


def infer_settings(tensors: Tensors,
                   norm_eps: Optional[float] = None,
                   final_norm: Optional[bool] = None) -> Dict[str, Any]:
    """Arguments of ``mmpretrain.BEiTViT`` that tensors fit.

    Args:
        tensors (dict[str, Tensor]): In our names, without a prefix.
        norm_eps (float, optional): Eps of all LayerNorms. Defaults to None,
            not known: that of the class, 1e-6.
        final_norm (bool, optional): Whether the last layer has a norm.
            Defaults to None, not known: it has, unless there is one behind
            the average of the patches.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    table = tensors.get(SHARED, tensors.get(OF_LAYER))
    if table is None or table.ndim != 2:
        raise ValueError(f'expected a tensor {SHARED} or {OF_LAYER} of two '
                         'dimensions, found none')
    offsets, num_heads = table.shape
    side = (round((offsets - EXTRA_OFFSETS)**0.5) + 1) // 2
    settings = settings_of_layers(tensors, num_heads, final_norm)
    if norm_eps is not None:
        settings.update(norm_cfg=dict(type='LN', eps=norm_eps))
    return dict(
        settings,
        img_size=side * settings['patch_size'],
        # Its offsets are in the tables.
        with_cls_token=True,
        use_abs_pos_emb='pos_embed' in tensors,
        use_rel_pos_bias=OF_LAYER in tensors,
        use_shared_rel_pos_bias=SHARED in tensors,
        layer_scale_init_value=0.1 if 'layers.0.gamma_1' in tensors else 0.)


def declared_settings(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The same arguments as far as a backbone's config names them.

    Raises:
        ValueError: If a value is not what the argument takes.
    """
    return dict(
        declared_layers(cfg, BEiTViT.arch_zoo, False),
        out_type=str(cfg.get('out_type', 'avg_featmap')),
        use_abs_pos_emb=bool(cfg.get('use_abs_pos_emb', False)),
        use_rel_pos_bias=bool(cfg.get('use_rel_pos_bias', True)),
        use_shared_rel_pos_bias=bool(
            cfg.get('use_shared_rel_pos_bias', False)),
        layer_scale_init_value=float(cfg.get('layer_scale_init_value', 0.1)))


def build(settings: Dict[str, Any]) -> nn.Module:
    return BEiTViT(**settings)


BEIT = Family(
    name='beit',
    types=('mmpretrain.BEiTViT', ),
    pattern=r'^layers\.\d+\.attn\.q_bias$',
    passing=r'^(head|mask_token)\b',
    layouts=LAYOUTS,
    infer_settings=infer_settings,
    declared_settings=declared_settings,
    build=build,
    untraced=('final_norm', ),
    adapt=adapt)
