# Copyright (c) greenmim authors. All rights reserved.
"""Vision Transformer: its layouts, and its settings read off the tensors."""
import re
from typing import Any, Dict, Optional, Sequence

from torch import nn

from greenmim.models import GreenMIMVisionTransformer
from .layouts import Family, Layout, Tensors
from .swin import image_size

# Attention heads leave no trace in the tensors. From ViT-T to ViT-L a head has
# 64 channels.
HEAD_DIMS = 64

# FastMIM's names are those of timm, as MAE's are.
_TIMM = (
    ('cls_token', 'cls_token'),
    ('pos_embed', 'pos_embed'),
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('blocks.{i}.norm', 'layers.{i}.ln'),
    ('blocks.{i}.ls1.gamma', 'layers.{i}.attn.gamma1.weight'),
    ('blocks.{i}.ls2.gamma', 'layers.{i}.ffn.gamma2.weight'),
    ('blocks.{i}.attn.', 'layers.{i}.attn.'),
    ('blocks.{i}.mlp.fc1.', 'layers.{i}.ffn.layers.0.0.'),
    ('blocks.{i}.mlp.fc2.', 'layers.{i}.ffn.layers.1.'),
    ('norm.', 'ln1.'),
    ('fc_norm.', 'ln2.'),
)

LAYOUTS = {
    'openmmlab': Layout(),
    'mmdet': Layout(),
    # Its ViT-B has 6 heads in pre-training and 12 in fine-tuning.
    'fastmim': Layout(_TIMM, norm_eps=1e-6, pre_training=dict(num_heads=6)),
    'timm': Layout(_TIMM),
}


def infer_settings(tensors: Tensors,
                   norm_eps: Optional[float] = None,
                   num_heads: Optional[int] = None,
                   img_size: Any = None,
                   final_norm: Optional[bool] = None) -> Dict[str, Any]:
    """Arguments of ``mmpretrain.VisionTransformer`` that tensors fit.

    Args:
        tensors (dict[str, Tensor]): In our names, without a prefix.
        norm_eps (float, optional): Eps of all LayerNorms. Defaults to None,
            not known: that of the class, 1e-6.
        num_heads (int, optional): Attention heads. Defaults to None, not
            known: a head for 64 channels.
        img_size (int | list[int], optional): Size of the images that the
            positions are of. Defaults to None, not known: they are square.
        final_norm (bool, optional): Whether the last layer has a norm.
            Defaults to None, not known: it has, unless there is one behind
            the average of the patches.

    Raises:
        ValueError: If a tensor that tells a setting is missing, or the
            positions are not those of a square.
    """
    settings = settings_of_layers(tensors, num_heads, final_norm)
    extra = 'cls_token' in tensors
    if 'pos_embed' not in tensors:
        raise ValueError('expected a tensor pos_embed, found none')
    if img_size is None:
        number = tensors['pos_embed'].shape[1] - extra
        side = round(number**0.5)
        if side**2 != number:
            raise ValueError(
                'expected pos_embed to hold the positions of a square image, '
                f'got {number} of them')
        img_size = side * settings['patch_size']
    if norm_eps is not None:
        settings.update(norm_cfg=dict(type='LN', eps=norm_eps))
    return dict(
        settings,
        img_size=img_size,
        with_cls_token=extra,
        layer_scale_init_value=float('layers.0.attn.gamma1.weight' in tensors))


def settings_of_layers(tensors: Tensors, num_heads: Optional[int],
                       final_norm: Optional[bool]) -> Dict[str, Any]:
    """What is told by the patch embedding, the layers and the norms.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    matches = (re.match(r'layers\.(\d+)\.', name) for name in tensors)
    layers = {int(match[1]) for match in matches if match}
    try:
        dims, in_channels, patch_size, _ = tensors[
            'patch_embed.projection.weight'].shape
        hidden, _ = tensors['layers.0.ffn.layers.0.0.weight'].shape
    except (KeyError, ValueError) as error:
        raise ValueError('expected the tensors of a whole ViT, found none '
                         f'that tells its width ({error})') from None
    heads = num_heads or max(1, dims // HEAD_DIMS)
    if dims % heads:
        raise ValueError(f'expected heads that divide the {dims} channels, '
                         f'got {heads}; say how many by --num-heads')
    pooled = 'ln2.weight' in tensors
    return dict(
        arch=dict(
            embed_dims=dims,
            num_layers=1 + max(layers),
            num_heads=heads,
            feedforward_channels=hidden),
        patch_size=patch_size,
        in_channels=in_channels,
        out_type='avg_featmap' if pooled else 'featmap',
        final_norm='ln1.weight' in tensors
        or (not pooled if final_norm is None else final_norm))


def declared_settings(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The same arguments as far as a backbone's config names them.

    Raises:
        ValueError: If a value is not what the argument takes.
    """
    return dict(
        declared_layers(cfg, GreenMIMVisionTransformer.arch_zoo, True),
        out_type=str(cfg.get('out_type', 'cls_token')),
        layer_scale_init_value=float(cfg.get('layer_scale_init_value', 0.)))


def declared_layers(cfg: Dict[str, Any], zoo: Dict[str, dict],
                    final_norm: bool) -> Dict[str, Any]:
    """What plain and relative ViT have in common in a config.

    Args:
        cfg (dict): The backbone's.
        zoo (dict): The arches that have a name.
        final_norm (bool): The default of the class.

    Raises:
        ValueError: If a value is not what the argument takes.
    """
    arch = cfg.get('arch', 'base')
    arch = zoo.get(arch.lower()) if isinstance(arch, str) else arch
    keys = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')
    if not isinstance(arch, dict) or not all(key in arch for key in keys):
        raise ValueError(f'expected an arch of ViT, got {cfg.get("arch")!r}')
    eps = float(cfg.get('norm_cfg', {}).get('eps', 1e-6))
    return dict(
        arch={key: int(arch[key])
              for key in keys},
        img_size=image_size(cfg.get('img_size', 224)),
        patch_size=int(cfg.get('patch_size', 16)),
        in_channels=int(cfg.get('in_channels', 3)),
        with_cls_token=bool(cfg.get('with_cls_token', True)),
        final_norm=bool(cfg.get('final_norm', final_norm)),
        norm_cfg=dict(type='LN', eps=eps))


def adapt(settings: Dict[str, Any], windows: Sequence[int],
          maps: bool) -> Dict[str, Any]:
    """Maps of several layers are read as they are, without a norm."""
    if not maps:
        return settings
    return {**settings, 'final_norm': False, 'out_type': 'featmap'}


def build(settings: Dict[str, Any]) -> nn.Module:
    return GreenMIMVisionTransformer(**settings)


VIT = Family(
    name='vit',
    types=('mmpretrain.VisionTransformer',
           'greenmim.GreenMIMVisionTransformer'),
    pattern=r'^layers\.\d+\.attn\.qkv\.bias$',
    passing=r'^(head|mask_token)\b',
    layouts=LAYOUTS,
    infer_settings=infer_settings,
    declared_settings=declared_settings,
    build=build,
    untraced=('num_heads', 'img_size', 'final_norm'),
    adapt=adapt)
