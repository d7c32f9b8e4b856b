# Copyright (c) greenmim authors. All rights reserved.
"""Write the backbone of a checkpoint for the library that will use it.

The file is checked tensor by tensor, and its backbone's settings, image size
and origin are kept in it. A report with hashes and coverage lies beside it.
"""
import argparse
import sys
from pathlib import Path
from typing import List, Optional, Tuple

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
        help='resize the bias tables to this window, one for all stages or '
        'one for each')
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


def how_to_use(backbone: Backbone, to: str, target: Target, out: Path) -> str:
    """The lines that load the file, and the settings that it needs."""
    arch = backbone.settings.get('arch', {})
    eps = backbone.norm_eps
    if to == 'timm' and not backbone.windows:
        keys = ('embed_dims', 'depths', 'num_heads', 'mlp_ratios', 'sr_ratios')
        lines = [
            'model = timm.models.pvt_v2.PyramidVisionTransformerV2(',
            '    num_classes=0, '
            f"{', '.join(f'{key}={arch[key]}' for key in keys)})",
            f"timm.models.load_checkpoint(model, '{out}')",
        ]
    elif to == 'timm':
        lines = [
            'model = timm.models.swin_transformer.SwinTransformer(',
            f'    img_size={backbone.img_size or 224}, num_classes=0, '
            f"embed_dim={arch['embed_dims']},",
            f"    depths={arch['depths']}, num_heads={arch['num_heads']},",
            f'    window_size={backbone.windows},',
            f'    norm_layer=partial(torch.nn.LayerNorm, eps={eps or 1e-5}))',
            f"timm.models.load_checkpoint(model, '{out}')",
        ]
    elif to == 'safetensors':
        lines = [
            f"backbone.load_state_dict(safetensors.torch.load_file('{out}'))"
        ]
    else:
        lines = [
            f"init_cfg=dict(type='Pretrained', checkpoint='{out}', "
            f"prefix='{target.prefix}')"
        ]
    if backbone.windows:
        windows = backbone.windows
        lines.append('# window_size: '
                     f'{windows[0] if target.one_window else windows}')
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
