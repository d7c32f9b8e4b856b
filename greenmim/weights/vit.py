# Copyright (c) greenmim authors. All rights reserved.
"""Vision Transformer: layouts and settings."""
from typing import Any, Dict, Optional, Sequence, Tuple

from greenmim.models import GreenMIMVisionTransformer
from .family import Family, norm_config, shape_of
from .layouts import Layout, Renames, Tensors, last_stage

# Channels of an attention head from ViT-T to ViT-L. The tensors do not
# determine the number of heads.
HEAD_DIMS = 64

# timm, MAE and FastMIM have the same names.
_TIMM: Renames = (
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

_HF_BLOCK = 'encoder.layer.{i}.'
_TRANSFORMERS: Renames = (
    ('embeddings.cls_token', 'cls_token'),
    ('embeddings.mask_token', 'mask_token'),
    ('embeddings.position_embeddings', 'pos_embed'),
    ('embeddings.patch_embeddings.projection.', 'patch_embed.projection.'),
    *((_HF_BLOCK + theirs, 'layers.{i}.' + ours) for theirs, ours in (
        ('attention.attention.query.', 'attn.q.'),
        ('attention.attention.key.', 'attn.k.'),
        ('attention.attention.value.', 'attn.v.'),
        ('attention.output.dense.', 'attn.proj.'),
        ('layernorm_before.', 'ln1.'),
        ('layernorm_after.', 'ln2.'),
        ('intermediate.dense.', 'ffn.layers.0.0.'),
        ('output.dense.', 'ffn.layers.1.'),
    )),
    ('layernorm.', 'ln1.'),
)  # yapf: disable


class ViT(Family):
    """Plain Vision Transformer."""
    name = 'vit'
    types: Tuple[str, ...] = ('mmpretrain.VisionTransformer',
                              'greenmim.GreenMIMVisionTransformer')
    cls = GreenMIMVisionTransformer
    layouts = {
        'openmmlab': Layout(),
        'mmdet': Layout(),
        # Its ViT-B has 6 heads in pre-training and 12 in fine-tuning.
        'fastmim': Layout(
            _TIMM, norm_eps=1e-6, pretraining=dict(num_heads=6)),
        'mae': Layout(_TIMM, norm_eps=1e-6),
        'timm': Layout(_TIMM),
        'transformers': Layout(_TRANSFORMERS, attention='qkv'),
    }  # yapf: disable
    # The decoder of MAE, and what transformers adds for a class token.
    ignored = r'^(head|mask_token|pooler|decoder\w*)\b'
    pattern = r'^layers\.\d+\.attn\.qkv\.bias$'
    hints: Tuple[str, ...] = ('num_heads', 'img_size', 'final_norm')

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       **hints: Any) -> Dict[str, Any]:
        """Without hints, heads have 64 channels, images are square, and the
        last layer is followed by a norm, unless a norm follows the average of
        the patches."""
        settings = self.layer_settings(tensors, norm_eps, **hints)
        has_token = 'cls_token' in tensors
        img_size = hints.get('img_size')
        if img_size is None:
            number = shape_of(tensors, 'pos_embed', 3)[1] - has_token
            side = round(number**0.5)
            if side**2 != number:
                raise ValueError('expected pos_embed to hold the positions of '
                                 f'a square image, got {number} of them')
            img_size = side * settings['patch_size']
        return dict(
            settings,
            img_size=img_size,
            with_cls_token=has_token,
            layer_scale_init_value=float(
                'layers.0.attn.gamma1.weight' in tensors))

    def layer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float],
                       num_heads: Optional[int] = None,
                       final_norm: Optional[bool] = None,
                       **hints: Any) -> Dict[str, Any]:
        """The settings of patch embedding, layers and norms."""
        dims, in_channels, patch_size, _ = shape_of(
            tensors, 'patch_embed.projection.weight', 4)
        hidden, _ = shape_of(tensors, 'layers.0.ffn.layers.0.0.weight', 2)
        heads = num_heads or max(1, dims // HEAD_DIMS)
        if not isinstance(heads, int) or dims % heads:
            raise ValueError(f'expected heads that divide the {dims} '
                             f'channels, got {heads}; pass --num-heads')
        pooled = 'ln2.weight' in tensors
        norm = dict(norm_cfg=norm_config(norm_eps)) if norm_eps else {}
        return dict(
            norm,
            arch=dict(
                embed_dims=dims,
                num_layers=1 + last_stage(tensors),
                num_heads=heads,
                feedforward_channels=hidden),
            patch_size=patch_size,
            in_channels=in_channels,
            out_type='avg_featmap' if pooled else 'featmap',
            final_norm='ln1.weight' in tensors
            or (not pooled if final_norm is None else final_norm))

    def hints_from(self, model: Any) -> Dict[str, Any]:
        height, width = model.img_size
        values = dict(
            num_heads=model.arch_settings['num_heads'],
            img_size=height if height == width else [height, width],
            final_norm=model.final_norm)
        return {key: values[key] for key in self.hints}

    def adapt(self, settings: Dict[str, Any], windows: Sequence[int],
              maps: bool) -> Dict[str, Any]:
        """Maps of several layers have no norm."""
        if not maps:
            return settings
        return {**settings, 'final_norm': False, 'out_type': 'featmap'}

    def timm_model(self, settings: Dict[str, Any], img_size: Any,
                   windows: Sequence[int]) -> Tuple[str, Dict[str, Any]]:
        arch = settings['arch']
        pooled = settings['out_type'] == 'avg_featmap'
        return 'vision_transformer.VisionTransformer', dict(
            img_size=img_size,
            patch_size=settings['patch_size'],
            in_chans=settings['in_channels'],
            embed_dim=arch['embed_dims'],
            depth=arch['num_layers'],
            num_heads=arch['num_heads'],
            mlp_ratio=arch['feedforward_channels'] / arch['embed_dims'],
            class_token=settings['with_cls_token'],
            global_pool='avg' if pooled else 'token',
            init_values=settings['layer_scale_init_value'] or None)

    def transformers_model(self, settings: Dict[str, Any], img_size: Any,
                           norm_eps: Optional[float],
                           windows: Sequence[int]) -> Dict[str, Any]:
        arch = settings['arch']
        if not (settings['with_cls_token'] and settings['final_norm']):
            raise ValueError(
                'expected a ViT with a class token and a norm after the last '
                'layer, which that of transformers has, got one without; '
                'export it with --to mmpretrain')
        return dict(
            architectures=['ViTModel'],
            model_type='vit',
            image_size=img_size,
            patch_size=settings['patch_size'],
            num_channels=settings['in_channels'],
            hidden_size=arch['embed_dims'],
            num_hidden_layers=arch['num_layers'],
            num_attention_heads=arch['num_heads'],
            intermediate_size=arch['feedforward_channels'],
            encoder_stride=settings['patch_size'],
            layer_norm_eps=norm_eps or 1e-6)

    def hints_from_transformers(self, config: Dict[str,
                                                   Any]) -> Dict[str, Any]:
        return dict(
            num_heads=config.get('num_attention_heads', 12),
            img_size=config.get('image_size', 224))
