# Copyright (c) greenmim authors. All rights reserved.
"""The Python that builds a backbone and loads its file."""
import inspect
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from greenmim.registry import MODELS
from .convert import TARGETS, Backbone, Target

WIDTH = 79
EPS_UNKNOWN = (
    '# eps of the LayerNorms: not recorded, or they differ; compare '
    'it with that\n# of the pre-training')


def usage_of(backbone: Backbone,
             library: str,
             path: Path,
             config: Optional[Dict[str, Any]] = None) -> str:
    """Python to paste: it builds a backbone and loads its file.

    Settings that are the default of the class are left out.

    Args:
        backbone: As :func:`fit_to` returns it.
        library: A key of ``TARGETS``.
        path: The file.
        config: The backbone's config, ``type`` included. Needed of one that
            only its config knows.

    Returns:
        str: For MMPretrain, MMDetection and MMSegmentation the ``backbone``
        of a config, for the others lines that make a model.

    Raises:
        ValueError: If there is neither a family nor a config.
    """
    if library == 'timm':
        return '\n'.join(_timm(backbone, path))
    target = TARGETS[library]
    lines = []
    if backbone.family is not None:
        types, settings = _settings(backbone, target)
        lines += [f'# The same network: type={name!r}' for name in types[1:]]
        if not backbone.norm_eps:
            lines.append(EPS_UNKNOWN)
    elif config is not None:
        types, settings = (config['type'], ), dict(config)
    else:
        raise ValueError('expected the config of a backbone that only its '
                         'config knows, got None')
    settings = dict(settings, type=types[0])
    settings.pop('init_cfg', None)
    if library == 'safetensors':
        return '\n'.join([
            'from safetensors.torch import load_file', '',
            'from greenmim.registry import MODELS', '', *lines,
            _code('backbone = MODELS.build(', _in_order(settings),
                  ')'), f'backbone.load_state_dict(load_file({str(path)!r}))'
        ])
    settings['init_cfg'] = dict(type='Pretrained', checkpoint=str(path))
    family = backbone.family
    if family is None or family.layouts[target.layout].knows_prefix:
        settings['init_cfg']['prefix'] = target.prefix
    return '\n'.join([*lines, _code('backbone = ', _in_order(settings))])


def _in_order(settings: Dict[str, Any]) -> Dict[str, Any]:
    return {'type': settings['type'], **settings}


def _settings(backbone: Backbone,
              target: Target) -> Tuple[Tuple[str, ...], Dict[str, Any]]:
    """The classes that have the names of a file, and their arguments."""
    family = backbone.family
    assert family is not None
    layout = family.layouts[target.layout]
    if layout.arguments is not None:
        return layout.types, layout.arguments(backbone.settings)
    settings = _common_stages(backbone.settings, list(backbone.windows))
    if target.maps and backbone.windows:
        # Images of any size; the windows of a small map are shifted.
        settings['pad_small_map'] = True
    if target.maps and 'num_layers' in settings['arch']:
        # Maps of a ViT are those of layers: as many as a pyramid has stages.
        number = settings['arch']['num_layers']
        settings['out_indices'] = sorted(
            {max(0, number * quarter // 4 - 1)
             for quarter in range(1, 5)})
    return family.types, _without_defaults(family.types[0], settings)


def _common_stages(settings: Dict[str, Any],
                   windows: List[int]) -> Dict[str, Any]:
    """Say once what is the same in every stage."""
    settings = dict(settings)
    if len(set(windows)) != 1:
        return settings
    settings['window_size'] = windows[0]
    if isinstance(settings.get('stage_cfgs'), list):
        common = dict(settings['stage_cfgs'][0])
        common['block_cfgs'] = {
            key: value
            for key, value in common['block_cfgs'].items()
            if key != 'window_size'
        }
        settings['stage_cfgs'] = common if common['block_cfgs'] else {}
    return settings


def _without_defaults(name: str, settings: Dict[str, Any]) -> Dict[str, Any]:
    """Leave out the class's defaults, and name an arch that has a name."""
    cls = MODELS.get(name)
    defaults = {
        key: _plain(parameter.default)
        for parent in reversed(cls.__mro__[:-1])
        for key, parameter in inspect.signature(parent).parameters.items()
    }
    kept = {
        key: settings[key]
        for key in sorted(settings, key=list(defaults).index)
        if defaults[key] != _plain(settings[key])
    }
    for arch, value in cls.arch_zoo.items():
        # Most have a letter and a name, and some a second name.
        if len(arch) > 1 and _plain(value) == _plain(settings['arch']):
            return {**kept, 'arch': arch} if 'arch' in kept else kept
    return kept


def _plain(value: Any) -> Any:
    """A value with lists in place of tuples, to compare it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _timm_model(backbone: Backbone) -> Tuple[str, Dict[str, Any]]:
    """The class of timm, and its arguments but for the LayerNorms'."""
    settings = backbone.settings
    arch = settings['arch']
    family = backbone.family and backbone.family.name
    if family == 'pvt_v2':
        return 'pvt_v2.PyramidVisionTransformerV2', dict(
            arch,
            in_chans=settings['in_channels'],
            qkv_bias=settings['qkv_bias'])
    size = dict(
        img_size=backbone.img_size or settings.get('img_size', 224),
        patch_size=settings['patch_size'],
        in_chans=settings['in_channels'],
        embed_dim=arch['embed_dims'])
    if family in ('swin', 'swin_v2'):
        size.update(
            depths=arch['depths'],
            num_heads=arch['num_heads'],
            window_size=list(backbone.windows))
        if family == 'swin':
            return 'swin_transformer.SwinTransformer', size
        key = 'pretrained_window_sizes'
        return 'swin_transformer_v2.SwinTransformerV2', {
            **size, key: settings[key]
        }
    size.update(
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=arch['feedforward_channels'] / arch['embed_dims'],
        global_pool='avg'
        if settings['out_type'] == 'avg_featmap' else 'token',
        init_values=settings['layer_scale_init_value'] or None)
    if family == 'vit':
        return 'vision_transformer.VisionTransformer', dict(
            size, class_token=settings['with_cls_token'])
    keys = ('use_abs_pos_emb', 'use_rel_pos_bias', 'use_shared_rel_pos_bias')
    return 'beit.Beit', dict(
        size,
        use_fc_norm=settings['out_type'] == 'avg_featmap',
        **{key: settings[key]
           for key in keys})


def _timm(backbone: Backbone, path: Path) -> List[str]:
    name, arguments = _timm_model(backbone)
    arguments = dict(num_classes=0, **arguments)
    lines = ['import timm']
    norms = [EPS_UNKNOWN]
    if backbone.norm_eps:
        lines.append('import torch')
        # Not all of its classes take the eps of all their norms.
        norms = [
            'for module in model.modules():',
            '    if isinstance(module, torch.nn.LayerNorm):',
            f'        module.eps = {backbone.norm_eps}'
        ]
    return [
        *lines, '',
        _code('model = ', arguments, call=f'timm.models.{name}'), *norms,
        f'timm.models.load_checkpoint(model, {str(path)!r})'
    ]


def _code(before: str,
          value: Any,
          after: str = '',
          indent: int = 0,
          call: str = 'dict') -> str:
    """Python of plain values; those too long for a line in one line each.

    Dicts are calls, of ``call`` on the highest level.
    """
    line = f'{" " * indent}{before}{_one_line(value, call)}{after}'
    if len(line) <= WIDTH or not isinstance(value, (dict, list)):
        return line
    if isinstance(value, dict):
        parts = [(f'{key}=', item) for key, item in value.items()]
        opening, closing = f'{call}(', ')'
    else:
        parts, opening, closing = [('', item) for item in value], '[', ']'
    ends = [','] * (len(parts) - 1) + [closing + after]
    items = [
        _code(name, item, end, indent + 4)
        for (name, item), end in zip(parts, ends)
    ]
    return '\n'.join([f'{" " * indent}{before}{opening}', *items])


def _one_line(value: Any, call: str = 'dict') -> str:
    if isinstance(value, dict):
        items = (f'{key}={_one_line(item)}' for key, item in value.items())
        return f'{call}({", ".join(items)})'
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(_one_line, value))}]'
    return repr(value)
