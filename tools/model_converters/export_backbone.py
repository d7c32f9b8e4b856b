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
from greenmim.weights import (TARGETS, fit_to, passport_of, read_backbone,
                              read_source, summarise, usage_of, write_report,
                              write_weights)


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
    scope = cfg.get('default_scope', 'mmpretrain')
    init_default_scope(scope)
    # Built for the names and shapes; `init_cfg` is not needed for these.
    backbone = cfg.model.backbone.to_dict()
    built = MODELS.build({**backbone, 'init_cfg': None})
    if '.' not in backbone['type']:
        backbone['type'] = f'{scope}.{backbone["type"]}'
    return built, backbone


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
    print(f'{out} is written; report: {report}\nuse it with\n')
    print(usage_of(backbone, args.to, out, config))


def main() -> None:
    try:
        export(parse_args())
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')


if __name__ == '__main__':
    main()
