# Copyright (c) greenmim authors. All rights reserved.
"""A backbone out of a file of one library, and into that of another."""
import re
from dataclasses import dataclass, replace
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from torch import nn

from .beit import BEIT
from .cmt import CMT
from .coverage import Coverage
from .layouts import Family, Layout, Tensors
from .pvt_v2 import PVT_V2
from .reading import Source
from .swin import SWIN
from .swin_v2 import SWIN_V2
from .vit import VIT

FAMILIES = (SWIN, SWIN_V2, PVT_V2, CMT, VIT, BEIT)
# What a model computes from its window and not from its training.
BUFFERS = ('relative_position_index', 'relative_coords_table')


@dataclass(frozen=True)
class Target:
    """What a library expects of a file.

    Args:
        layout: Name of the layout.
        prefix: Stands before the backbone's names.
        suffix: Of the file: ``.pth`` where MMEngine reads it, which knows no
            safetensors.
        maps: Whether maps of several stages are read. Those of a pyramid
            have a norm each, those of a ViT have none.
    """
    layout: str = 'openmmlab'
    prefix: str = 'backbone.'
    suffix: str = '.pth'
    maps: bool = False


TARGETS = {
    'mmpretrain': Target(),
    'mmdet': Target('mmdet', maps=True),
    'mmseg': Target(maps=True),
    'timm': Target('timm', prefix='', suffix='.safetensors'),
    'safetensors': Target(prefix='', suffix='.safetensors'),
}
# A file is read by its library's name or by its authors'.
SOURCES = {
    **{
        name: target.layout
        for name, target in TARGETS.items()
    },
    **{
        name: name
        for family in FAMILIES
        for name in family.layouts if name != 'openmmlab'
    },
}


@dataclass(frozen=True)
class Backbone:
    """A backbone's tensors in our names, each of them accounted for.

    Args:
        tensors: Without a prefix.
        family: None for one that is known by its config alone.
        settings: The backbone's arguments, as far as tensors tell them.
        img_size: That of the pre-training; None if it is not recorded.
        norm_eps: Eps of all LayerNorms; None if it is not recorded, or they
            differ.
        left_out: Names of the file's tensors that are no part of it.
        coverage: Of the backbone.
        resized: Names of the bias tables that were resized.
        added: Names of the norms that pre-training does not have.
        dropped: Names of the norms that the target does not have.
    """
    tensors: Tensors
    family: Optional[Family]
    settings: Dict[str, Any]
    img_size: Any
    norm_eps: Optional[float]
    left_out: Tuple[str, ...]
    coverage: Coverage
    resized: Tuple[str, ...] = ()
    added: Tuple[str, ...] = ()
    dropped: Tuple[str, ...] = ()

    @property
    def windows(self) -> Sequence[int]:
        """The window of each stage; none where attention is global."""
        if self.family is None:
            return []
        return self.family.windows_of(self.settings)


def read_backbone(source: Source,
                  layout_name: str = 'openmmlab',
                  built: Optional[nn.Module] = None,
                  config: Optional[Dict[str, Any]] = None,
                  known: Optional[Dict[str, Any]] = None) -> Backbone:
    """Bring a file's backbone into our names and check it.

    The tensors must be those of a model: ``built`` where it is given, else
    the one that the file's own metadata or config declares, else one that is
    inferred from the tensors themselves.

    Args:
        source: The file.
        layout_name: Its layout.
        built: The model that the tensors must fit.
        config: Its config.
        known: Arguments that leave no trace in the tensors, see
            :class:`Family`.

    Raises:
        ValueError: If a tensor is missing, unknown or does not fit, or
            something is known that the tensors tell.
    """
    family, tensors, homeless = _recognise(source.backbone, layout_name)
    if family is None and built is None:
        raise ValueError(
            f"expected a backbone of {[f.name for f in FAMILIES]} in the "
            f"layout {layout_name!r}, got names such as "
            f'{list(source.backbone)[:3]}')
    added = source.metadata.get('added', [])
    left_out = [*source.others, *(name for name in added if name in tensors)]
    passing = [
        name for name in [*tensors, *homeless]
        if family is not None and re.search(family.passing, name)
    ]
    left_out += passing
    tensors = {k: v for k, v in tensors.items() if k not in left_out}
    homeless = tuple(name for name in homeless if name not in passing)

    declared = config or source.config or source.metadata.get('backbone')
    told: Dict[str, Any] = {}
    if family is not None:
        if declared and (built is None or family.untraced):
            told = _declared(family, declared)
        known = _untraced(family, layout_name, source, told, known)
    if built is None and family is not None:
        if declared:
            settings = {**told}
            if 'out_indices' in told:
                settings['out_indices'] = [
                    i for i in told['out_indices']
                    if f'norm{i}.weight' not in added
                ]
        else:
            settings = family.infer_settings(tensors, None, **(known or {}))
        built = family.build(settings)
    assert built is not None
    expected = {
        name: tensor
        for name, tensor in built.state_dict().items() if name not in passing
    }
    if family is not None:
        # An index says nothing that the window does not: few files need it.
        layout = family.layouts[layout_name]
        tensors = {**_unstored(expected, tensors, layout), **tensors}
    coverage = Coverage.compare('backbone', expected, tensors, homeless)
    coverage.require(
        'the backbone that the config, the file itself or its tensors tell of')

    img_size, norm_eps = None, None
    if source.metadata and not config and not source.config:
        img_size = source.metadata.get('img_size')
        norm_eps = source.metadata.get('norm_eps')
    elif declared:
        # 224 is the default of every Swin.
        default = told.get('img_size', 224 if family else None)
        img_size = declared.get('img_size', default)
        norm_eps = _norm_eps(built)
    elif family is not None:
        norm_eps = family.layouts[layout_name].norm_eps
    return Backbone({name: tensors[name]
                     for name in expected}, family,
                    {} if family is None else family.infer_settings(
                        tensors, norm_eps, **(known or {})), img_size,
                    norm_eps, tuple(left_out), coverage)


def fit_to(backbone: Backbone,
           target: Target,
           windows: Optional[Sequence[int]] = None) -> Backbone:
    """Give a backbone the windows and norms that a target needs.

    Args:
        backbone: It stays as it is.
        target: The library.
        windows: One for all stages, or one for each of them; those of the
            pre-training by default, or the largest of them where the library
            takes one alone.

    Raises:
        ValueError: If the windows do not fit the backbone or the library.
    """
    family = backbone.family
    if family is None:
        if windows or target.maps or target.layout != 'openmmlab':
            raise ValueError(
                'expected a backbone of '
                f'{[known.name for known in FAMILIES]} for this target or '
                'window, got one that only its config knows; export it with '
                '--to mmpretrain or --to safetensors')
        return backbone
    windows = _windows_for(backbone, target, windows)
    tensors, resized = family.resize_windows(backbone.tensors, windows)
    settings = family.adapt(backbone.settings, windows, target.maps)
    template = family.build(settings).state_dict()
    added = tuple(
        name for name in template
        if name not in tensors and re.match(r'norm\d+\.', name))
    dropped = tuple(
        name for name in tensors
        if name not in template and re.match(r'ln\d\.', name))
    # Fresh norms have weight 1 and bias 0; buffers are those of the new
    # windows.
    fresh = [k for k in template if k in added or k.endswith(BUFFERS)]
    kept = {k: v for k, v in tensors.items() if k not in dropped}
    tensors = {**{name: template[name] for name in fresh}, **kept}
    Coverage.compare('backbone', template, tensors).require('a whole backbone')
    return replace(
        backbone,
        tensors={name: tensors[name]
                 for name in template},
        settings=family.infer_settings(tensors, backbone.norm_eps,
                                       **_arguments(family, settings)),
        left_out=backbone.left_out + dropped,
        resized=resized,
        added=added,
        dropped=dropped)


def _windows_for(backbone: Backbone, target: Target,
                 windows: Optional[Sequence[int]]) -> Sequence[int]:
    """The window of each stage; none for a backbone without windows."""
    own = list(backbone.windows)
    family = backbone.family
    assert family is not None
    if not own:
        if windows:
            raise ValueError('expected no window for a backbone without '
                             f'windows ({family.name}), got {windows}')
        return own
    one_window = target.maps and family.one_window
    if windows is None:
        windows = [max(own)] if one_window else own
    windows = list(windows) * (len(own) if len(windows) == 1 else 1)
    if len(windows) != len(own) or min(windows) < 1:
        raise ValueError(f'expected one window, or one for each of {len(own)} '
                         f'stages, at least 1, got {windows}')
    if one_window and len(set(windows)) > 1:
        raise ValueError('expected one window for all stages, since the '
                         f'Swin of this library takes one, got {windows}')
    return windows


def tensors_for(backbone: Backbone, target: Target) -> Tensors:
    """The tensors that a target's file holds.

    Args:
        backbone: As :func:`fit_to` returns it.
        target: The library.

    Returns:
        dict[str, Tensor]: In the library's names and order, with the prefix
        that its class takes off.

    Raises:
        ValueError: If the library has no place for one of them.
    """
    tensors = backbone.tensors
    homeless: Tuple[str, ...] = ()
    prefix = target.prefix
    if backbone.family is not None:
        layout = backbone.family.layouts.get(target.layout)
        if layout is None:
            raise ValueError(
                f'expected a library that has a {backbone.family.name}, got '
                f"{target.layout}, which has none; export it with --to "
                'mmpretrain or --to safetensors')
        tensors, homeless = backbone.family.to_layout(tensors, layout)
        prefix = prefix if layout.knows_prefix else ''
    if homeless:
        raise ValueError('expected a place for every tensor in the library, '
                         f'found none for {list(homeless)}')
    # Views would be saved with all of the storage that they look at.
    return {
        prefix + name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _recognise(
        tensors: Tensors,
        layout_name: str) -> Tuple[Optional[Family], Tensors, Tuple[str, ...]]:
    """The family, its tensors in our names, and names without a place."""
    for family in FAMILIES:
        if layout_name in family.layouts:
            layout = family.layouts[layout_name]
            ours, homeless = family.from_layout(tensors, layout)
            if family.knows(ours):
                return family, ours, homeless
    return None, tensors, ()


def _declared(family: Family, declared: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return family.declared_settings(declared)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(
            'cannot read the backbone that the checkpoint itself declares '
            f'({type(error).__name__}: {error}); name the config of the '
            'pre-training by --config') from error


def _arguments(family: Family, settings: Dict[str, Any]) -> Dict[str, Any]:
    """Those of the settings that leave no trace."""
    arch = settings.get('arch', {})
    return {
        name: settings.get(name, arch.get(name))
        for name in family.untraced
    }


def _untraced(family: Family, layout_name: str, source: Source,
              told: Dict[str, Any],
              known: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """All that is known of the arguments that leave no trace."""
    known = known or {}
    traced = sorted(set(known) - set(family.untraced))
    if traced:
        raise ValueError(f'expected not to be told the {traced} of a '
                         f'{family.name}, whose tensors tell them if it has '
                         'them; leave out the option')
    if told:
        known = {**_arguments(family, told), **known}
    if source.prefix.endswith('encoder.'):
        known = {**family.layouts[layout_name].pre_training, **known}
    return known


def _norm_eps(built: nn.Module) -> Optional[float]:
    values = {
        module.eps
        for module in built.modules() if isinstance(module, nn.LayerNorm)
    }
    return values.pop() if len(values) == 1 else None


def _unstored(expected: Tensors, given: Tensors, layout: Layout) -> Tensors:
    """The buffers that a layout does not store."""
    return {
        name: tensor
        for name, tensor in expected.items()
        if name not in given and name.endswith(layout.without)
    }
