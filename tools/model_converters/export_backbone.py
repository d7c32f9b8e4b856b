# Copyright (c) greenmim authors. All rights reserved.
"""Write the backbone of a checkpoint for the library that will use it.

The file is checked tensor by tensor, and its backbone's settings, image size
and origin are kept in it. A report with hashes and coverage lies beside it.
"""
import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from greenmim.registry import MODELS
from greenmim.weights import (TARGETS, Backbone, Target, fit_to, passport_of,
                              read_backbone, read_source, summarise,
                              write_report, write_weights)


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Export the backbone of a checkpoint to a library')
    parser.add_argument(
        'checkpoint',
        type=Path,
        help='of a pre-training, or '
        'a file that import_checkpoint.py wrote')
    parser.add_argument(
        '--to', choices=TARGETS, required=True, help='who will load the file')
    parser.add_argument(
        '--out',
        type=Path,
        help='the file to write; by default '
        'CHECKPOINT_to-LIBRARY beside the checkpoint')
    parser.add_argument(
        '--config',
        help='config of the pre-training, which the tensors must '
        'fit; by default what the checkpoint itself tells')
    parser.add_argument(
        '--window-size',
        type=int,
        nargs='+',
        help='fit the bias tables, and the buffers of Swin V2, to this '
        'window, one for all stages or one for each')
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        '--ema', action='store_true', help='take the running averages')
    weights.add_argument(
        '--raw',
        action='store_true',
        help='take the weights themselves, not their running averages')
    return parser.parse_args(argv)


def build_from(config: str) -> Tuple[nn.Module, dict]:
    """The backbone of a config, and its part of the config."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    # Built for the names and shapes; `init_cfg` is not needed for these.
    backbone = cfg.model.backbone
    return MODELS.build({**backbone, 'init_cfg': None}), backbone.to_dict()


def timm_model(backbone: Backbone) -> Tuple[str, Dict[str, Any]]:
    """The class of timm, and its arguments but for the LayerNorms'."""
    settings = backbone.settings
    arch = settings['arch']
    family = backbone.family and backbone.family.name
    if family == 'pvt_v2':
        return 'pvt_v2.PyramidVisionTransformerV2', arch
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


def timm_lines(backbone: Backbone) -> List[str]:
    """The lines that build the model in timm."""
    name, arguments = timm_model(backbone)
    arguments = dict(num_classes=0, **arguments)
    text = ', '.join(f'{key}={value!r}' for key, value in arguments.items())
    if backbone.norm_eps:
        text += ', norm_layer=partial(torch.nn.LayerNorm, '
        text += f'eps={backbone.norm_eps})'
    return [
        f'model = timm.models.{name}(', *textwrap.wrap(
            f'{text})',
            initial_indent=' ' * 4,
            subsequent_indent=' ' * 4,
            break_long_words=False,
            break_on_hyphens=False)
    ]


def how_to_use(backbone: Backbone, to: str, target: Target, out: Path) -> str:
    """The lines that load the file, and the settings that it needs."""
    eps = backbone.norm_eps
    settings = backbone.settings
    family = backbone.family
    if to == 'timm':
        lines = timm_lines(backbone) + [
            f"timm.models.load_checkpoint(model, '{out}')"
        ]
    elif to == 'safetensors':
        lines = [
            f"backbone.load_state_dict(safetensors.torch.load_file('{out}'))"
        ]
    else:
        layout = family and family.layouts[target.layout]
        prefix = f", prefix='{target.prefix}'"
        if layout and not layout.knows_prefix:
            prefix = ''
        lines = [
            f"init_cfg=dict(type='Pretrained', checkpoint='{out}'{prefix})"
        ]
    if family is not None and to != 'timm':
        types = family.layouts[target.layout].types or family.types
        lines.append(f'# type: {types}')
    if backbone.windows:
        windows = backbone.windows
        one_window = target.maps and family is not None and family.one_window
        lines.append(f'# window_size: {windows[0] if one_window else windows}')
    for name in ('pretrained_window_sizes', 'out_type', 'final_norm'):
        if name in settings:
            lines.append(f'# {name}: {settings[name]}')
    if family is not None and 'num_heads' in family.untraced:
        lines.append(f"# num_heads: {settings['arch']['num_heads']}")
    if family is not None and family.name == 'beit':
        shared = settings['use_shared_rel_pos_bias']
        lines.append(f'# use_shared_rel_pos_bias: {shared}')
    lines.append('# eps of every LayerNorm: ' + (
        f'{eps}' if eps else
        'not recorded, or they differ; take those of the pre-training'))
    return '\n'.join('    ' + line for line in lines)


def export(args: argparse.Namespace) -> None:
    """Read, check, fit and write.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a tensor is missing, unknown or does not fit.
    """
    target = TARGETS[args.to]
    out = args.out or args.checkpoint.with_name(
        f'{args.checkpoint.stem}_to-{args.to}{target.suffix}')
    if out.suffix != target.suffix:
        raise ValueError(f'expected --out with the suffix {target.suffix}, '
                         f'which {args.to} reads, got {out}')
    built, config = build_from(args.config) if args.config else (None, None)
    averaged = True if args.ema else False if args.raw else None
    source = read_source(args.checkpoint, averaged)
    backbone = read_backbone(source, built=built, config=config)
    print(backbone.coverage)
    if source.averaged:
        print('these are running averages (EMA)')
    if backbone.left_out:
        print(f'left out, no part of the backbone: '
              f'{summarise(backbone.left_out)}')
    backbone = fit_to(backbone, target, args.window_size)
    if backbone.resized:
        print(f'resized {len(backbone.resized)} bias tables to windows '
              f'{backbone.windows}')
    if backbone.dropped:
        print('left out too, since maps of several layers have no norm: '
              f'{", ".join(backbone.dropped)}')
    if backbone.added:
        print('written with weight 1 and bias 0, since pre-training does not '
              f'have them: {", ".join(backbone.added)}')
    passport = passport_of(backbone, source, args.checkpoint.name,
                           'mmpretrain', args.to)
    write_weights(out, backbone, target, passport)
    report = write_report(out, passport, backbone)
    print(f'{out} is written; report: {report}\nuse it with')
    print(how_to_use(backbone, args.to, target, out))


def main() -> None:
    try:
        export(parse_args())
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')


if __name__ == '__main__':
    main()
