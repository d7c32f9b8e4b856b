# Copyright (c) greenmim authors. All rights reserved.
"""Export the backbone of a checkpoint for the library that will use it.

Every tensor is checked. The backbone's settings, its image size and its
origin are recorded in the file, and a report with hashes and coverage is
written beside it.
"""
import argparse
import sys
from pathlib import Path
from typing import Tuple

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from greenmim.registry import MODELS
from greenmim.weights import (TARGETS, add_ema_options, fit_to, loading_code,
                              read_backbone, read_source, summarise,
                              write_weights)


def parse_args() -> argparse.Namespace:
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
        'match; by default the config in the checkpoint')
    parser.add_argument(
        '--window-size',
        type=int,
        nargs='+',
        help='resize the bias tables, and the buffers of Swin V2, to this '
        'window, one for all stages or one for each')
    add_ema_options(parser)
    return parser.parse_args()


def build_from(config: str) -> Tuple[nn.Module, dict]:
    """The backbone of a config, and its part of the config."""
    cfg = Config.fromfile(config)
    scope = cfg.get('default_scope', 'mmpretrain')
    init_default_scope(scope)
    # Only its names and shapes are used, which do not need `init_cfg`.
    backbone = cfg.model.backbone.to_dict()
    model = MODELS.build({**backbone, 'init_cfg': None})
    if '.' not in backbone['type']:
        backbone['type'] = f'{scope}.{backbone["type"]}'
    return model, backbone


def export(args: argparse.Namespace) -> None:
    """Read, check, convert and write.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a tensor is missing, unexpected or does not match.
    """
    target = TARGETS[args.to]
    out = args.out or args.checkpoint.with_name(
        f'{args.checkpoint.stem}_to-{args.to}{target.suffix}')
    if out.suffix != target.suffix:
        raise ValueError(f'expected --out with the suffix {target.suffix}, '
                         f'which {args.to} reads, got {out}')
    model, config = build_from(args.config) if args.config else (None, None)
    source = read_source(args.checkpoint, args.averaged)
    backbone = read_backbone(source, model=model, config=config)
    print(backbone.coverage)
    if source.averaged:
        print('these are running averages (EMA)')
    if backbone.left_out:
        print('left out, not part of the backbone: '
              f'{summarise(backbone.left_out)}')
    backbone = fit_to(backbone, target, args.window_size)
    if backbone.resized:
        print(f'resized {len(backbone.resized)} bias tables to windows '
              f'{backbone.windows}')
    if backbone.dropped:
        print('also left out, since maps of several layers have no norm: '
              f'{", ".join(backbone.dropped)}')
    if backbone.added:
        print('added with weight 1 and bias 0, since pre-training does not '
              f'have them: {", ".join(backbone.added)}')
    report = write_weights(out, backbone, args.to, source)
    print(f'wrote {out}; report: {report}\nuse it with\n')
    print(loading_code(backbone, args.to, out, config))


def main() -> None:
    try:
        export(parse_args())
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')


if __name__ == '__main__':
    main()
