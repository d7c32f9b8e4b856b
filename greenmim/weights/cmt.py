# Copyright (c) greenmim authors. All rights reserved.
"""CMT: its layouts, and its settings read off the tensors."""
import re
from typing import Any, Dict, List, Optional, Tuple

from torch import nn

from greenmim.models import CMT as DenseCMT
from .layouts import Family, Layout, Renames, Tensors


def _authors() -> Renames:
    """Stages have letters there, and a stem has no list."""
    renames: List[Tuple[str, str]] = [('norm.', 'norm3.')]
    for i in range(3):
        renames += [(f'stem_conv{i + 1}.', f'stem.{3 * i}.'),
                    (f'stem_norm{i + 1}.', f'stem.{3 * i + 2}.')]
    for i, letter in enumerate('abcd'):
        renames += [
            (f'patch_embed_{letter}.proj.', f'patch_embeds.{i}.projection.'),
            (f'patch_embed_{letter}.norm.', f'patch_embeds.{i}.norm.'),
            (f'relative_pos_{letter}', f'position_biases.{i}.bias'),
            (f'blocks_{letter}.' + '{j}.', f'stages.{i}.' + '{j}.'),
        ]
    return tuple(renames)


LAYOUTS = {
    'openmmlab': Layout(),
    'mmdet': Layout(),
    'fastmim': Layout(_authors()),
}


def infer_settings(tensors: Tensors,
                   norm_eps: Optional[float] = None) -> Dict[str, Any]:
    """Arguments of :class:`CMT` that tensors fit.

    Args:
        tensors (dict[str, Tensor]): In our names, without a prefix.
        norm_eps (float, optional): Eps of all LayerNorms. Defaults to None,
            not known: those of the authors.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    matches = (re.match(r'stages\.(\d+)\.(\d+)\.', name) for name in tensors)
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    arch: Dict[str, Any] = dict(
        embed_dims=[], depths=[], num_heads=[], mlp_ratios=[], sr_ratios=[])
    try:
        for stage in range(1 + max(stage for stage, _ in blocks)):
            prefix = f'stages.{stage}.0.'
            hidden, dims = tensors[f'{prefix}mlp.conv1.0.weight'].shape[:2]
            reduction = tensors.get(f'{prefix}attn.sr.0.weight')
            bias = tensors[f'position_biases.{stage}.bias']
            arch['embed_dims'].append(dims)
            arch['depths'].append(
                sum(of_stage == stage for of_stage, _ in blocks))
            arch['num_heads'].append(bias.shape[0])
            arch['mlp_ratios'].append(hidden // dims)
            arch['sr_ratios'].append(1 if reduction is
                                     None else reduction.shape[-1])
        side = round(tensors['position_biases.0.bias'].shape[1]**0.5)
        stem, in_channels = tensors['stem.0.weight'].shape[:2]
    except (KeyError, ValueError) as error:
        raise ValueError(
            'expected the tensors of a whole CMT, found none '
            f'that tells its depths or widths ({error})') from None
    eps = (1e-6, 1e-5) if norm_eps is None else (norm_eps, norm_eps)
    return dict(
        arch=dict(arch, stem_channels=stem),
        img_size=4 * side,
        in_channels=in_channels,
        out_indices=[
            i for i in range(len(arch['depths']))
            if f'norm{i}.weight' in tensors
        ],
        qkv_bias='stages.0.0.attn.q.bias' in tensors,
        norm_cfg=dict(type='LN', eps=eps[0]),
        patch_norm_cfg=dict(type='LN', eps=eps[1]))


def declared_settings(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The same arguments as far as a backbone's config names them.

    Raises:
        ValueError: If a value is not what the argument takes.
    """
    zoo = DenseCMT.arch_zoo
    arch = cfg.get('arch', 'small')
    arch = zoo.get(arch) if isinstance(arch, str) else arch
    if not isinstance(arch, dict) or arch.keys() != zoo['small'].keys():
        raise ValueError(f'expected an arch of CMT, got {cfg.get("arch")!r}')
    norms = {
        key: dict(type='LN', eps=float((cfg.get(key) or {}).get('eps', eps)))
        for key, eps in (('norm_cfg', 1e-6), ('patch_norm_cfg', 1e-5))
    }
    return dict(
        arch={
            key: [int(v)
                  for v in value] if isinstance(value,
                                                (list, tuple)) else int(value)
            for key, value in arch.items()
        },
        img_size=int(cfg.get('img_size', 224)),
        in_channels=int(cfg.get('in_channels', 3)),
        out_indices=[int(i) for i in cfg.get('out_indices', (3, ))],
        qkv_bias=bool(cfg.get('qkv_bias', True)),
        **norms)


def build(settings: Dict[str, Any]) -> nn.Module:
    return DenseCMT(**settings)


CMT = Family(
    name='cmt',
    types=('greenmim.GreenMIMCMT', ),
    pattern=r'^position_biases\.\d+\.bias$',
    passing=r'^(head|mask_token)\b',
    layouts=LAYOUTS,
    infer_settings=infer_settings,
    declared_settings=declared_settings,
    build=build)
