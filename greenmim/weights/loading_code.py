# Copyright (c) greenmim authors. All rights reserved.
"""Writes the Python that builds a backbone and loads its file."""
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from mmengine.config import Config

from greenmim.registry import MODELS
from .card import UNKNOWN, size_in
from .convert import TARGETS, Backbone, Target, size_of
from .family import constructor_defaults

EPS_UNKNOWN = (
    '# The eps of the LayerNorms: not recorded, or they differ; compare it\n'
    '# with the config of the pre-training.')


def loading_code(backbone: Backbone,
                 library: str,
                 path: Path,
                 config: Optional[Dict[str, Any]] = None,
                 card: Optional[Dict[str, Any]] = None) -> str:
    """Python to paste, which builds a backbone and loads its file.

    Settings that are the default of the class are left out.

    Args:
        backbone: As :func:`fit_to` returns it.
        library: A key of ``TARGETS``.
        path: The file.
        config: The backbone's config, ``type`` included; needed if the
            backbone has no family.
        card: Its model card, for timm's ``pretrained_cfg``.

    Returns:
        str: The ``backbone`` of a config for MMPretrain, MMDetection and
        MMSegmentation, otherwise lines that make a model.

    Raises:
        ValueError: If there is neither a family nor a config.
    """
    target = TARGETS[library]
    family = backbone.family
    lines = [EPS_UNKNOWN] if family and not backbone.norm_eps else []
    if library == 'timm':
        return '\n'.join(_timm(backbone, path, lines, card or {}))
    if library == 'transformers':
        return '\n'.join(_transformers(backbone, path, lines))
    if family is not None:
        types, settings = _arguments(backbone, target)
        lines += [f'# The same network: type={name!r}' for name in types[1:]]
        settings['type'] = types[0]
    elif config is not None:
        settings = {k: v for k, v in config.items() if k != 'init_cfg'}
    else:
        raise ValueError('expected the config of a backbone without a family, '
                         'got None')
    if library == 'safetensors':
        return '\n'.join([
            'from safetensors.torch import load_file', '',
            'from greenmim.registry import MODELS', '', *lines,
            _assignment('config', settings), 'backbone = MODELS.build(config)',
            f'backbone.load_state_dict(load_file({str(path)!r}))'
        ])
    settings['init_cfg'] = dict(type='Pretrained', checkpoint=str(path))
    if family is None or family.layouts[target.layout].has_prefix:
        settings['init_cfg']['prefix'] = target.prefix
    return '\n'.join([*lines, _assignment('backbone', settings)])


def _arguments(backbone: Backbone,
               target: Target) -> Tuple[Tuple[str, ...], Dict[str, Any]]:
    """The types that have the names of a file, and their arguments."""
    family = backbone.family
    assert family is not None
    layout = family.layouts[target.layout]
    if layout.arguments is not None:
        return layout.types, layout.arguments(backbone.settings)
    settings = dict(backbone.settings)
    if target.maps and backbone.windows:
        # Images may have any size, and the windows of a small map are shifted.
        settings['pad_small_map'] = True
    if target.maps and 'num_layers' in settings['arch']:
        # A ViT returns as many maps as a pyramid has stages.
        number = settings['arch']['num_layers']
        settings['out_indices'] = sorted(
            {max(0, number * quarter // 4 - 1)
             for quarter in range(1, 5)})
    types = family.types
    if target.maps and family.maps_type:
        types = (family.maps_type, )
    return types, _without_defaults(MODELS.get(types[0]), settings)


def _without_defaults(cls: Any, settings: Dict[str, Any]) -> Dict[str, Any]:
    """Leave out the defaults of a class, and use the name of a known arch."""

    def is_same(a: Any, b: Any) -> bool:  # tuples equal lists
        return json.dumps(a, default=str) == json.dumps(b, default=str)

    defaults = constructor_defaults(cls)
    kept = {
        key: value
        for key, value in settings.items()
        if not is_same(value, defaults[key])
    }
    # ConvNeXt's has another name.
    zoo = cls.arch_zoo if hasattr(cls, 'arch_zoo') else cls.arch_settings
    for name, arch in zoo.items():
        # Most have two names; one letter alone says too little.
        if len(name) > 1 and 'arch' in kept and is_same(arch, kept['arch']):
            return {**kept, 'arch': name}
    return kept


def _timm(backbone: Backbone, path: Path, lines: List[str],
          card: Dict[str, Any]) -> List[str]:
    family, settings = backbone.family, backbone.settings
    assert family is not None
    name, arguments = family.timm_model(settings, size_of(backbone),
                                        backbone.windows)
    return [
        'import timm', *(['import torch'] if backbone.norm_eps else []), '',
        _assignment('arguments', dict(num_classes=0, **arguments)),
        f'model = timm.models.{name}(**arguments)',
        *_eps_lines(backbone, lines),
        f'timm.models.load_checkpoint(model, {str(path)!r})',
        *_pretrained_cfg(backbone, arguments, card),
        '# To classify: model.reset_classifier(NUMBER_OF_CLASSES)'
    ]


def _pretrained_cfg(backbone: Backbone, arguments: Dict[str, Any],
                    card: Dict[str, Any]) -> List[str]:
    """What ``timm.data.resolve_model_data_config`` reads."""
    if not card:
        return []
    norm = card['normalisation']
    config = dict(
        crop_pct=0.875,
        input_size=[arguments['in_chans'], *size_in(card, size_of(backbone))],
        interpolation='bicubic',
        mean=[round(value / 255, 6) for value in norm['mean']],
        std=[round(value / 255, 6) for value in norm['std']])
    if card['licence'] != UNKNOWN:
        config['license'] = card['licence']
    return [
        _assignment('pretrained_cfg', config),
        'model.pretrained_cfg = pretrained_cfg'
    ]


def _transformers(backbone: Backbone, path: Path,
                  lines: List[str]) -> List[str]:
    family = backbone.family
    assert family is not None
    config = family.transformers_model(backbone.settings, size_of(backbone),
                                       backbone.norm_eps, backbone.windows)
    kind, = config['architectures']
    # Its pooling layer reads the class token, and is not pre-trained.
    options = ', add_pooling_layer=False' if kind == 'ViTModel' else ''
    whole = kind.replace('Model', 'ForImageClassification')
    return [
        *(['import torch'] if backbone.norm_eps else []),
        f'from transformers import {kind}', '',
        f'model = {kind}.from_pretrained({str(path)!r}{options})',
        *_eps_lines(backbone, lines),
        f'# To classify: {whole}.from_pretrained(..., '
        'num_labels=NUMBER_OF_CLASSES)'
    ]


def _eps_lines(backbone: Backbone, unknown: List[str]) -> List[str]:
    """Not all classes of other libraries take the eps of all their norms."""
    if not backbone.norm_eps:
        return unknown
    return [
        'for module in model.modules():',
        '    if isinstance(module, torch.nn.LayerNorm):',
        f'        module.eps = {backbone.norm_eps}'
    ]


def _assignment(name: str, value: Dict[str, Any]) -> str:
    """Assign a dict as MMEngine prints it, with lists of numbers in a line."""
    text = Config({name: value}).pretty_text.strip()
    return re.sub(r'\[\s+([\d.,\s]+?),?\s+\]',
                  lambda match: f'[{" ".join(match[1].split())}]', text)
