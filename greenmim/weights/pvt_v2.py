# Copyright (c) greenmim authors. All rights reserved.
"""PVT v2: its layouts, and its settings read off the tensors."""
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import nn

from greenmim.models import PyramidVisionTransformerV2
from .layouts import Family, Layout, Tensors

_TIMM = (
    ('patch_embed.proj.', 'patch_embeds.0.projection.'),
    ('patch_embed.norm.', 'patch_embeds.0.norm.'),
    ('stages.{i}.downsample.proj.', 'patch_embeds.{i}.projection.'),
    ('stages.{i}.downsample.norm.', 'patch_embeds.{i}.norm.'),
    ('stages.{i}.blocks.{j}.mlp.', 'stages.{i}.{j}.ffn.'),
    ('stages.{i}.blocks.{j}.', 'stages.{i}.{j}.'),
    ('stages.{i}.norm.', 'norm{i}.'),
)
_AUTHORS = (
    ('patch_embed{i+1}.proj.', 'patch_embeds.{i}.projection.'),
    ('patch_embed{i+1}.norm.', 'patch_embeds.{i}.norm.'),
    ('block{i+1}.{j}.mlp.dwconv.dwconv.', 'stages.{i}.{j}.ffn.dwconv.'),
    ('block{i+1}.{j}.mlp.', 'stages.{i}.{j}.ffn.'),
    ('block{i+1}.{j}.', 'stages.{i}.{j}.'),
    ('norm{i+1}.', 'norm{i}.'),
)
# What stands in one tensor there has a name of its own here, `attn.qkv_`.
_MMDET = (
    ('layers.{i}.0.', 'patch_embeds.{i}.'),
    ('layers.{i}.1.{j}.attn.attn.in_proj_', 'stages.{i}.{j}.attn.qkv_'),
    ('layers.{i}.1.{j}.attn.attn.out_proj.', 'stages.{i}.{j}.attn.proj.'),
    ('layers.{i}.1.{j}.ffn.layers.0.', 'stages.{i}.{j}.ffn.fc1.'),
    ('layers.{i}.1.{j}.ffn.layers.1.', 'stages.{i}.{j}.ffn.dwconv.'),
    ('layers.{i}.1.{j}.ffn.layers.4.', 'stages.{i}.{j}.ffn.fc2.'),
    ('layers.{i}.1.{j}.', 'stages.{i}.{j}.'),
    ('layers.{i}.2.', 'norm{i}.'),
)
_QKV = re.compile(r'(.*\.attn\.)qkv_(\w+)$')
_Q_OR_KV = re.compile(r'(.*\.attn\.)(q|kv)\.(\w+)$')
_LINEAR = re.compile(r'.*\.ffn\.fc[12]\.weight$')


def pack(tensors: Tensors) -> Tensors:
    """Queries, keys and values in one tensor, linear layers as convolutions.

    MMDetection's ``nn.MultiheadAttention`` and ``MixFFN`` have them so.
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


LAYOUTS = {
    'openmmlab':
    Layout(norm_eps=1e-6),
    'pvt-v2':
    Layout(_AUTHORS),
    'fastmim':
    Layout(_AUTHORS),
    'timm':
    Layout(_TIMM),
    'mmdet': Layout(
        _MMDET,
        norm_eps=1e-6,
        types=('mmdet.PyramidVisionTransformerV2', ),
        arguments=mmdet_arguments,
        knows_prefix=False),
}  # yapf: disable


@dataclass(frozen=True)
class PVTv2Family(Family):
    """The family whose tensors MMDetection packs."""

    def from_layout(self, tensors: Tensors,
                    layout: Layout) -> Tuple[Tensors, Tuple[str, ...]]:
        ours, homeless = super().from_layout(tensors, layout)
        return unpack(ours), homeless

    def to_layout(self, tensors: Tensors,
                  layout: Layout) -> Tuple[Tensors, Tuple[str, ...]]:
        if layout is self.layouts['mmdet']:
            tensors = pack(tensors)
        return super().to_layout(tensors, layout)


def infer_settings(tensors: Tensors,
                   norm_eps: Optional[float] = None) -> Dict[str, Any]:
    """Arguments of :class:`PyramidVisionTransformerV2` that tensors fit.

    Heads leave no trace in the tensors: they are those of b0 to b5, a head
    for as many channels as the first stage has.

    Args:
        tensors (dict[str, Tensor]): In our names, without a prefix.
        norm_eps (float, optional): Eps of all LayerNorms. Defaults to None,
            not known: those of the paper's authors, 1e-6 in blocks and 1e-5
            behind convolutions.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    matches = (re.match(r'stages\.(\d+)\.(\d+)\.', name) for name in tensors)
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    arch: Dict[str, List[int]] = dict(
        embed_dims=[], depths=[], num_heads=[], mlp_ratios=[], sr_ratios=[])
    try:
        for stage in range(1 + max(stage for stage, _ in blocks)):
            prefix = f'stages.{stage}.0.'
            hidden, dims = tensors[f'{prefix}ffn.fc1.weight'].shape
            reduction = tensors.get(f'{prefix}attn.sr.weight')
            arch['embed_dims'].append(dims)
            arch['depths'].append(
                sum(of_stage == stage for of_stage, _ in blocks))
            arch['num_heads'].append(dims // arch['embed_dims'][0])
            arch['mlp_ratios'].append(hidden // dims)
            arch['sr_ratios'].append(1 if reduction is
                                     None else reduction.shape[-1])
        in_channels = tensors['patch_embeds.0.projection.weight'].shape[1]
    except (KeyError, ValueError) as error:
        raise ValueError(
            'expected the tensors of a whole PVT v2, found none '
            f'that tells its depths or widths ({error})') from None
    eps = (1e-6, 1e-5) if norm_eps is None else (norm_eps, norm_eps)
    return dict(
        arch=arch,
        in_channels=in_channels,
        out_indices=list(range(len(arch['depths']))),
        qkv_bias='stages.0.0.attn.q.bias' in tensors,
        norm_cfg=dict(type='LN', eps=eps[0]),
        conv_norm_cfg=dict(type='LN', eps=eps[1]))


def declared_settings(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The same arguments as far as a backbone's config names them.

    Raises:
        ValueError: If a value is not what the argument takes.
    """
    zoo = PyramidVisionTransformerV2.arch_zoo
    arch = cfg.get('arch', 'b2')
    arch = zoo.get(arch) if isinstance(arch, str) else arch
    if not isinstance(arch, dict) or arch.keys() != zoo['b2'].keys():
        raise ValueError(
            f'expected an arch of PVT v2, got {cfg.get("arch")!r}')
    norm = float(cfg.get('norm_cfg', {}).get('eps', 1e-6))
    conv_norm = cfg.get('conv_norm_cfg') or {}
    return dict(
        arch={key: [int(value) for value in arch[key]]
              for key in arch},
        in_channels=int(cfg.get('in_channels', 3)),
        out_indices=[int(i) for i in cfg.get('out_indices', (3, ))],
        qkv_bias=bool(cfg.get('qkv_bias', True)),
        norm_cfg=dict(type='LN', eps=norm),
        conv_norm_cfg=dict(type='LN', eps=float(conv_norm.get('eps', norm))))


def build(settings: Dict[str, Any]) -> nn.Module:
    return PyramidVisionTransformerV2(**settings)


PVT_V2 = PVTv2Family(
    name='pvt_v2',
    types=('greenmim.GreenMIMPVTv2', ),
    pattern=r'^stages\.\d+\.\d+\.ffn\.dwconv\.',
    passing=r'^(head|mask_token)\b',
    layouts=LAYOUTS,
    infer_settings=infer_settings,
    declared_settings=declared_settings,
    build=build)
