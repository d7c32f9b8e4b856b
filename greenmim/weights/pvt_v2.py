# Copyright (c) greenmim authors. All rights reserved.
"""PVT v2: layouts and settings."""
import re
from typing import Any, Dict, Optional, Sequence, Tuple

import torch

from greenmim.models import PyramidVisionTransformerV2
from .family import Family, norm_config, shape_of, stage_depths
from .layouts import Layout, Renames, Tensors

_TIMM: Renames = (
    ('patch_embed.proj.', 'patch_embeds.0.projection.'),
    ('patch_embed.norm.', 'patch_embeds.0.norm.'),
    ('stages.{i}.downsample.proj.', 'patch_embeds.{i}.projection.'),
    ('stages.{i}.downsample.norm.', 'patch_embeds.{i}.norm.'),
    ('stages.{i}.blocks.{j}.mlp.', 'stages.{i}.{j}.ffn.'),
    ('stages.{i}.blocks.{j}.', 'stages.{i}.{j}.'),
    ('stages.{i}.norm.', 'norm{i}.'),
)
_AUTHORS: Renames = (
    ('patch_embed{i+1}.proj.', 'patch_embeds.{i}.projection.'),
    ('patch_embed{i+1}.norm.', 'patch_embeds.{i}.norm.'),
    ('block{i+1}.{j}.mlp.dwconv.dwconv.', 'stages.{i}.{j}.ffn.dwconv.'),
    ('block{i+1}.{j}.mlp.', 'stages.{i}.{j}.ffn.'),
    ('block{i+1}.{j}.', 'stages.{i}.{j}.'),
    ('norm{i+1}.', 'norm{i}.'),
)
# MMDetection has queries, keys and values in one tensor: `attn.qkv_` here.
_MMDET: Renames = (
    ('layers.{i}.0.', 'patch_embeds.{i}.'),
    ('layers.{i}.1.{j}.attn.attn.in_proj_', 'stages.{i}.{j}.attn.qkv_'),
    ('layers.{i}.1.{j}.attn.attn.out_proj.', 'stages.{i}.{j}.attn.proj.'),
    ('layers.{i}.1.{j}.ffn.layers.0.', 'stages.{i}.{j}.ffn.fc1.'),
    ('layers.{i}.1.{j}.ffn.layers.1.', 'stages.{i}.{j}.ffn.dwconv.'),
    ('layers.{i}.1.{j}.ffn.layers.4.', 'stages.{i}.{j}.ffn.fc2.'),
    ('layers.{i}.1.{j}.', 'stages.{i}.{j}.'),
    ('layers.{i}.2.', 'norm{i}.'),
)
_HF_BLOCK = 'encoder.layers.{i}.blocks.{j}.'
_TRANSFORMERS: Renames = (
    ('encoder.layers.{i}.patch_embedding.proj.',
     'patch_embeds.{i}.projection.'),
    ('encoder.layers.{i}.patch_embedding.layer_norm.',
     'patch_embeds.{i}.norm.'),
    *((_HF_BLOCK + theirs, 'stages.{i}.{j}.' + ours) for theirs, ours in (
        ('layer_norm_1.', 'norm1.'),
        ('layer_norm_2.', 'norm2.'),
        ('attention.query.', 'attn.q.'),
        ('attention.key.', 'attn.k.'),
        ('attention.value.', 'attn.v.'),
        ('attention.proj.', 'attn.proj.'),
        ('attention.spatial_reduction.', 'attn.sr.'),
        ('attention.layer_norm.', 'attn.norm.'),
        ('mlp.dense1.', 'ffn.fc1.'),
        ('mlp.dense2.', 'ffn.fc2.'),
        ('mlp.dwconv.dwconv.', 'ffn.dwconv.'),
    )),
    ('encoder.layers.{i}.layer_norm.', 'norm{i}.'),
)  # yapf: disable
_QKV = re.compile(r'(.*\.attn\.)qkv_(\w+)$')
_Q_OR_KV = re.compile(r'(.*\.attn\.)(q|kv)\.(\w+)$')
_LINEAR = re.compile(r'.*\.ffn\.fc[12]\.weight$')


def mmdet_arguments(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Arguments of MMDetection's class.

    Its widths are multiples of the heads, and all its norms have one eps.
    """
    arch = settings['arch']
    return dict(
        in_channels=settings['in_channels'],
        embed_dims=arch['embed_dims'][0] // arch['num_heads'][0],
        num_stages=len(arch['depths']),
        num_layers=arch['depths'],
        num_heads=arch['num_heads'],
        mlp_ratios=arch['mlp_ratios'],
        sr_ratios=arch['sr_ratios'],
        qkv_bias=settings['qkv_bias'],
        norm_cfg=settings['norm_cfg'],
        convert_weights=False)


class PVTv2(Family):
    """PVT v2, whose tensors MMDetection packs."""
    name = 'pvt_v2'
    types = ('greenmim.GreenMIMPVTv2', )
    cls = PyramidVisionTransformerV2
    layouts = {
        'openmmlab': Layout(norm_eps=1e-6),
        'pvt-v2': Layout(_AUTHORS),
        'fastmim': Layout(_AUTHORS),
        'timm': Layout(_TIMM),
        'transformers': Layout(_TRANSFORMERS, attention='kv'),
        'mmdet': Layout(
            _MMDET,
            norm_eps=1e-6,
            types=('mmdet.PyramidVisionTransformerV2', ),
            arguments=mmdet_arguments,
            has_prefix=False),
    }  # yapf: disable
    pattern = r'^stages\.\d+\.\d+\.ffn\.dwconv\.'

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       **hints: Any) -> Dict[str, Any]:
        """The tensors do not determine the attention heads: as in b0 to b5,
        a head has as many channels as the first stage. Without ``norm_eps``,
        the authors' values are used."""
        arch = infer_pyramid(tensors, 'ffn.fc1.weight', 2, 'attn.sr.weight')
        widths = arch['embed_dims']
        arch['num_heads'] = [dims // widths[0] for dims in widths]
        return dict(
            arch=arch,
            in_channels=shape_of(tensors, 'patch_embeds.0.projection.weight',
                                 4)[1],
            out_indices=list(range(len(widths))),
            qkv_bias='stages.0.0.attn.q.bias' in tensors,
            norm_cfg=norm_config(norm_eps or 1e-6),
            conv_norm_cfg=norm_config(norm_eps or 1e-5))

    def from_layout(self,
                    tensors: Tensors,
                    name: str,
                    older: bool = True) -> Tuple[Tensors, Tuple[str, ...]]:
        ours, unexpected = super().from_layout(tensors, name, older)
        return unpack(ours), unexpected

    def to_layout(self, tensors: Tensors,
                  name: str) -> Tuple[Tensors, Tuple[str, ...]]:
        if name == 'mmdet':
            tensors = pack(tensors)
        return super().to_layout(tensors, name)

    def timm_model(self, settings: Dict[str, Any], img_size: Any,
                   windows: Sequence[int]) -> Tuple[str, Dict[str, Any]]:
        return 'pvt_v2.PyramidVisionTransformerV2', dict(
            settings['arch'],
            in_chans=settings['in_channels'],
            qkv_bias=settings['qkv_bias'])

    def transformers_model(self, settings: Dict[str, Any], img_size: Any,
                           norm_eps: Optional[float],
                           windows: Sequence[int]) -> Dict[str, Any]:
        arch = settings['arch']
        return dict(
            architectures=['PvtV2Model'],
            model_type='pvt_v2',
            image_size=img_size,
            num_channels=settings['in_channels'],
            num_encoder_blocks=len(arch['depths']),
            depths=arch['depths'],
            hidden_sizes=arch['embed_dims'],
            num_attention_heads=arch['num_heads'],
            sr_ratios=arch['sr_ratios'],
            mlp_ratios=arch['mlp_ratios'],
            qkv_bias=settings['qkv_bias'],
            layer_norm_eps=norm_eps or 1e-6)


def infer_pyramid(tensors: Tensors,
                  hidden: str,
                  ndim: int,
                  reduction: str,
                  reducing: int = 0) -> Dict[str, Any]:
    """Infer the arch, but for the heads, of PVT v2, CMT or Twins.

    In a block, the weight ``hidden`` of ``ndim`` dimensions, (hidden, dims,
    ...), widens the tokens; in that of number ``reducing``, ``reduction``
    reduces keys and values.
    """
    depths = stage_depths(tensors, r'stages\.(\d+)\.(\d+)\.')
    blocks = [f'stages.{i}.0.' for i in range(len(depths))]
    shapes = [shape_of(tensors, block + hidden, ndim) for block in blocks]
    reductions = [
        tensors.get(f'stages.{i}.{reducing}.{reduction}')
        for i in range(len(depths))
    ]
    return dict(
        embed_dims=[shape[1] for shape in shapes],
        depths=depths,
        num_heads=[],
        mlp_ratios=[shape[0] // shape[1] for shape in shapes],
        sr_ratios=[1 if r is None else r.shape[-1] for r in reductions])


def pack(tensors: Tensors) -> Tensors:
    """Join queries, keys and values, and make linear layers convolutions.

    This is the form of MMDetection's ``nn.MultiheadAttention`` and ``MixFFN``.
    """
    packed: Tensors = {}
    for name, tensor in tensors.items():
        match = _Q_OR_KV.match(name)
        if match is None:
            is_linear = _LINEAR.match(name)
            packed[name] = tensor[..., None, None] if is_linear else tensor
        elif match[2] == 'q':
            parts = [tensor, tensors[f'{match[1]}kv.{match[3]}']]
            packed[f'{match[1]}qkv_{match[3]}'] = torch.cat(parts)
    return packed


def unpack(tensors: Tensors) -> Tensors:
    """Undo :func:`pack`."""
    unpacked: Tensors = {}
    for name, tensor in tensors.items():
        match = _QKV.match(name)
        if match is not None:
            dims = len(tensor) // 3
            unpacked[f'{match[1]}q.{match[2]}'] = tensor[:dims]
            unpacked[f'{match[1]}kv.{match[2]}'] = tensor[dims:]
        else:
            is_linear = _LINEAR.match(name)
            unpacked[name] = tensor.flatten(1) if is_linear else tensor
    return unpacked
