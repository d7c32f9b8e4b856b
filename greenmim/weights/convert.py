# Copyright (c) greenmim authors. All rights reserved.
"""Converts the backbone of a checkpoint from and to the names of a library."""
import re
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import nn

from .beit import BEiT
from .cmt import CMT
from .convnext import ConvNeXt
from .coverage import Coverage
from .family import Family, constructor_defaults
from .hivit import HiViT
from .huggingface import of_model
from .layouts import Tensors
from .pvt_v2 import PVTv2
from .reading import Source
from .swin import Swin
from .swin_v2 import BUFFERS, SwinV2, for_stages
from .twins import PCPVT, SVT
from .vit import ViT

FAMILIES: Tuple[Family, ...] = (Swin(), SwinV2(), PVTv2(), CMT(), ConvNeXt(),
                                PCPVT(), SVT(), HiViT(), ViT(), BEiT())


@dataclass(frozen=True)
class Target:
    """What a library expects of a file.

    Args:
        layout: Name of the layout.
        prefix: Prefix of the backbone's names.
        suffix: Suffix of the file: ``.pth`` for MMEngine, which does not read
            safetensors.
        maps: Whether the library reads the maps of several stages. A pyramid
            then has a norm for each of them, a ViT has none.
        one_window: Whether the library's Swin takes one window for all
            stages.
        folder: Whether the library reads a folder with its config.
    """
    layout: str = 'openmmlab'
    prefix: str = 'backbone.'
    suffix: str = '.pth'
    maps: bool = False
    one_window: bool = False
    folder: bool = False


TARGETS = {
    'mmpretrain':
    Target(),
    'mmdet':
    Target('mmdet', maps=True, one_window=True),
    'mmseg':
    Target(maps=True, one_window=True),
    'timm':
    Target('timm', prefix='', suffix='.safetensors'),
    'transformers':
    Target('transformers', prefix='', suffix='', one_window=True, folder=True),
    'safetensors':
    Target(prefix='', suffix='.safetensors'),
}
# Layouts by the name of a target, or of the project that wrote the file.
SOURCES = {
    **{name: target.layout for name, target in TARGETS.items()},
    **{name: name for family in FAMILIES for name in family.layouts
       if name != 'openmmlab'},
}  # yapf: disable


@dataclass(frozen=True)
class Backbone:
    """A backbone's tensors in our names, all of them checked.

    Args:
        tensors: The tensors, without a prefix.
        family: The family; None if only a config describes the backbone.
        settings: Arguments of the backbone, as its family infers them.
        img_size: Size of the images in pre-training; None if not recorded.
        norm_eps: Eps of all LayerNorms; None if it is not recorded, or they
            differ.
        left_out: Names of the file's tensors that are not used.
        coverage: The check of the tensors.
        resized: Names of the bias tables that were resized.
        added: Names of the norms that were added, since pre-training does not
            have them.
        dropped: Names of the norms that the target does not have.
        used_outside: Names that belong to the backbone although the file has
            them elsewhere, see :class:`Layout`.
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
    used_outside: Tuple[str, ...] = ()

    @property
    def windows(self) -> List[int]:
        """The window of each stage; empty where attention is global."""
        return [] if self.family is None else self.family.windows(self.tensors)


def read_backbone(source: Source,
                  layout_name: str = 'openmmlab',
                  model: Optional[nn.Module] = None,
                  config: Optional[Dict[str, Any]] = None,
                  hints: Dict[str, Any] = {},
                  transformers: Optional[Dict[str, Any]] = None) -> Backbone:
    """Convert a file's backbone to our names and check its tensors.

    They must match ``model``, where it is given; otherwise the model that the
    file's own config or metadata describes; otherwise one inferred from the
    tensors.

    Args:
        source: The content of the file.
        layout_name: Name of its layout.
        model: The model that the tensors must match.
        config: Its config, needed with ``model``.
        hints: Arguments that the tensors do not determine, see
            :class:`Family`.
        transformers: The ``config.json`` of transformers, for its layout.

    Raises:
        ValueError: If a tensor is missing, unexpected or does not match, or
            if the tensors determine an argument in ``hints``.
    """
    if layout_name == 'transformers':
        source = of_model(source)
    family, tensors, unexpected = _recognise(source, layout_name)
    if family is None:
        if model is None:
            raise ValueError(_unknown(source, layout_name))
        ignored: List[str] = []
    else:
        ignored = [
            name for name in [*tensors, *unexpected]
            if re.search(family.ignored, name)
        ]
    # The norms that an earlier export has added.
    added = source.metadata.get('added', [])
    outside = '(?!)' if family is None else family.layouts[layout_name].outside
    used_outside = [n for n in source.others if re.search(outside, n)]
    left_out = [
        *(name for name in source.others if name not in used_outside),
        *(name for name in added if name in tensors), *ignored
    ]
    tensors = {k: v for k, v in tensors.items() if k not in left_out}
    recorded = config or source.config or source.metadata.get('backbone')
    if family is not None:
        model, hints = _model_of(family, layout_name, source, tensors, model,
                                 recorded, hints, transformers)
    assert model is not None
    expected = {k: v for k, v in model.state_dict().items()
                if k not in ignored}  # yapf: disable
    if family is not None:
        not_stored = family.layouts[layout_name].not_stored
        missing = _missing_norms(family, expected, tensors)
        tensors = {
            **{k: v for k, v in expected.items() if k.endswith(not_stored)},
            **missing, **tensors
        }  # yapf: disable
    else:
        missing = {}
    coverage = Coverage.compare(
        'backbone', expected, tensors,
        [name for name in unexpected if name not in ignored])
    coverage.require('the backbone that the config, the metadata of the file '
                     'or its tensors describe')

    img_size, norm_eps = None, None
    if source.metadata and not config and not source.config:
        img_size = source.metadata.get('img_size')
        norm_eps = source.metadata.get('norm_eps')
    elif recorded:
        default = family and constructor_defaults(family.cls).get(
            'img_size', 224)
        img_size = recorded.get('img_size', default)
        norm_eps = _common_norm_eps(model)
    elif family is not None:
        norm_eps = family.layouts[layout_name].norm_eps
        if transformers:
            img_size = transformers.get('image_size', 224)
            norm_eps = norm_eps or family.eps_from_transformers(transformers)
    tensors = {name: tensors[name] for name in expected}
    # A config is all that describes a backbone without a family.
    settings = dict(recorded or {}) if family is None else (
        family.infer_settings(tensors, norm_eps, **hints))
    return Backbone(
        tensors,
        family,
        settings,
        img_size,
        norm_eps,
        tuple(left_out),
        coverage,
        added=tuple(missing),
        used_outside=tuple(used_outside))


def _missing_norms(family: Family, expected: Tensors,
                   tensors: Tensors) -> Tensors:
    """The norms that a pre-training may lack, if the file has none."""
    if any(re.match(family.addable, name) for name in tensors):
        return {}
    return {
        name: (torch.ones_like
               if name.endswith('weight') else torch.zeros_like)(tensor)
        for name, tensor in expected.items() if re.match(family.addable, name)
    }


def _recognise(
        source: Source,
        layout_name: str) -> Tuple[Optional[Family], Tensors, Tuple[str, ...]]:
    """The family, its tensors in our names, and the unexpected keys."""
    for family in FAMILIES:
        if layout_name in family.layouts:
            layout = family.layouts[layout_name]
            outside = {
                name: tensor
                for name, tensor in source.others.items()
                if re.search(layout.outside, name)
            }
            ours, unexpected = family.from_layout(
                dict(source.backbone, **outside),
                layout_name,
                # A pre-training's, which no version of timm has written.
                older=not source.prefix.endswith('encoder.'))
            if family.recognises(ours):
                return family, ours, unexpected
    return None, source.backbone, ()


def _unknown(source: Source, layout_name: str) -> str:
    """Why there is no family in a layout, and what to do."""
    fitting = [name for name in dict.fromkeys(SOURCES.values())
               if name != layout_name
               and _recognise(source, name)[0] is not None]  # yapf: disable
    if fitting:
        remedy = f'they are those of {" or ".join(map(repr, fitting))}'
    elif layout_name == 'openmmlab':
        remedy = 'name the config of the pre-training by --config'
    else:
        remedy = 'see who wrote the file'
    return (f'{source.path}: expected a backbone of '
            f'{[f.name for f in FAMILIES]} in the names of {layout_name!r}, '
            f'got names such as {list(source.backbone)[:3]}; {remedy}')


def _model_of(
    family: Family, layout_name: str, source: Source, tensors: Tensors,
    model: Optional[nn.Module], recorded: Optional[Dict[str, Any]],
    hints: Dict[str, Any],
    transformers: Optional[Dict[str,
                                Any]]) -> Tuple[nn.Module, Dict[str, Any]]:
    """The model that the tensors must match, and all known hints."""
    determined = sorted(set(hints) - set(family.hints))
    if determined:
        raise ValueError(f'{determined} of a {family.name} cannot be given: '
                         'it is read from the tensors, if the model has it; '
                         'drop this option')
    if transformers:
        hints = {**family.hints_from_transformers(transformers), **hints}
    if source.prefix.endswith('encoder.'):
        hints = {**family.layouts[layout_name].pretraining, **hints}
    if model is None and recorded:
        added = source.metadata.get('added', [])
        if added and recorded.get('out_indices'):
            outputs = [
                i for i in recorded.get('out_indices', [])
                if f'norm{i}.weight' not in added
            ]
            # The last norm may have been added on import.
            outputs = outputs or recorded['out_indices'][-1:]
            recorded = dict(recorded, out_indices=outputs)
        model = family.build_recorded(recorded)
    if model is None:
        model = family.build(family.infer_settings(tensors, None, **hints))
    else:
        hints = {**family.hints_from(model), **hints}
    return model, hints


def _common_norm_eps(model: nn.Module) -> Optional[float]:
    values = {
        module.eps
        for module in model.modules() if isinstance(module, nn.LayerNorm)
    }
    return values.pop() if len(values) == 1 else None


def size_of(backbone: Backbone) -> Any:
    """Size of the images in pre-training, or else the usual one."""
    return backbone.img_size or backbone.settings.get('img_size', 224)


def fit_to(backbone: Backbone,
           target: Target,
           windows: Optional[Sequence[int]] = None) -> Backbone:
    """Change a backbone's windows and norms to what a target needs.

    Args:
        backbone: The backbone, which is not modified.
        target: The library.
        windows: One for all stages, or one for each of them. Defaults to
            None: the present windows, or the largest of them where the
            library takes only one.

    Raises:
        ValueError: If the windows do not suit the backbone or the library.
    """
    family = backbone.family
    if family is None:
        if windows or target.maps or target.layout != 'openmmlab':
            raise ValueError(
                f'expected a backbone of {[known.name for known in FAMILIES]} '
                'for this target or window, got one that only its config '
                'describes; export it with --to mmpretrain or --to '
                'safetensors')
        return backbone
    windows = _windows_for(family, backbone.windows, target, windows)
    tensors, resized = family.resize_tables(backbone.tensors, windows)
    settings = backbone.settings
    settings = family.infer_settings(tensors, backbone.norm_eps,
                                     **family.hints_of(settings))
    settings = family.adapt(settings, windows, target.maps)
    # Its norms have weight 1 and bias 0, its buffers suit the new windows.
    template = family.build(settings).state_dict()
    added = tuple(
        name for name in template
        if name not in tensors and re.match(r'norm\d+\.', name))
    dropped = tuple(
        name for name in tensors
        if name not in template and re.match(r'ln\d\.', name))
    fresh = {
        name: tensor
        for name, tensor in template.items() if name in added or (
            name.endswith(BUFFERS) and tensor.shape != tensors[name].shape)
    }
    tensors = {k: v for k, v in tensors.items() if k not in dropped}
    tensors.update(fresh)
    Coverage.compare('backbone', template, tensors).require('a whole backbone')
    return replace(
        backbone,
        tensors={name: tensors[name]
                 for name in template},
        settings=settings,
        left_out=backbone.left_out + dropped,
        resized=resized,
        added=backbone.added + added,
        dropped=dropped)


def _windows_for(family: Family, own: Sequence[int], target: Target,
                 windows: Optional[Sequence[int]]) -> Sequence[int]:
    """The window of each stage, of the ``own`` and the requested ones; empty
    for a backbone without windows."""
    if not own:
        if windows:
            raise ValueError('expected no window for a backbone without '
                             f'windows ({family.name}), got {windows}')
        return own
    one_window = target.one_window and family.one_window
    if not windows:
        windows = [max(own)] if one_window else own
    windows = for_stages(windows, len(own))
    if one_window and len(set(windows)) > 1:
        raise ValueError('expected one window for all stages, since the '
                         f'Swin of this library takes one, got {windows}')
    return windows


def tensors_for(backbone: Backbone, target: Target) -> Tensors:
    """The tensors to write into a target's file.

    Args:
        backbone: As :func:`fit_to` returns it.
        target: The library.

    Returns:
        dict[str, Tensor]: In the library's names and order, with the prefix
        that its class expects.

    Raises:
        ValueError: If the library does not have the backbone or one of its
            tensors.
    """
    tensors = backbone.tensors
    unexpected: Tuple[str, ...] = ()
    prefix = target.prefix
    if backbone.family is not None:
        layout = backbone.family.layouts.get(target.layout)
        if layout is None:
            raise ValueError(
                f'expected a library that has a {backbone.family.name}, got '
                f"{target.layout}, which has none; export it with --to "
                'mmpretrain or --to safetensors')
        tensors, unexpected = backbone.family.to_layout(tensors, target.layout)
        prefix = prefix if layout.has_prefix else ''
    if unexpected:
        raise ValueError(
            f'expected a library that has all tensors of the backbone, but '
            f'{target.layout} lacks {list(unexpected)}; export it with --to '
            'mmpretrain or --to safetensors')
    # A view would be saved with all of the storage that it shares.
    return {
        prefix + name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
