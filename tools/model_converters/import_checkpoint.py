# Copyright (c) greenmim authors. All rights reserved.
"""Bring a checkpoint of another library into this project's names.

The result initialises a backbone here and in MMPretrain by
``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``, and
is what ``export_backbone.py`` takes. Of the checkpoints of GreenMIM, SimMIM
and FastMIM decoder and mask token are kept as well, so that their algorithm
can go on training; of a fine-tuned one the classifier, for an
``ImageClassifier``.

It knows Swin, Swin V2, ViT, ViT with relative positions as SimMIM and BEiT
have it, PVT v2 and CMT, by their tensors.
"""
import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import List, Optional

from greenmim.weights import (SOURCES, TARGETS, convert_rest, passport_of,
                              read_backbone, read_source, summarise, usage_of,
                              write_report, write_weights)


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Import a checkpoint of another library')
    parser.add_argument('checkpoint', type=Path, help='.pth or .safetensors')
    parser.add_argument(
        '--from',
        dest='source',
        choices=SOURCES,
        required=True,
        help='who wrote the file. It does not tell the order of its '
        'patch-merging channels. The weights that the GreenMIM authors '
        "released in 2022 most likely have that of 'greenmim-2022'; their "
        "code since its last commit writes that of 'greenmim'. With the "
        'wrong one the file loads and the model is useless: compare the '
        'pre-training losses of both on real images')
    parser.add_argument(
        '--out',
        type=Path,
        help='the .pth to write; by default '
        'CHECKPOINT_from-LIBRARY.pth beside the checkpoint')
    parser.add_argument(
        '--img-size',
        type=int,
        help='size of the images in the pre-training, to be recorded; by '
        'default what the file tells')
    parser.add_argument(
        '--num-heads',
        type=int,
        help='attention heads of a ViT, whose tensors do not tell them; by '
        'default a head for 64 channels, and 6 for the pre-training of '
        'FastMIM')
    parser.add_argument(
        '--window-size',
        type=int,
        nargs='+',
        help='windows of a Swin V2, one for all stages or one for each, '
        "where the file does not tell them, as timm's")
    parser.add_argument(
        '--pretrained-window-size',
        type=int,
        nargs='+',
        help='windows that its relative positions are scaled by, likewise; '
        'by default those of --window-size')
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        '--ema', action='store_true', help='take the running averages')
    weights.add_argument(
        '--raw',
        action='store_true',
        help='take the weights themselves, not their running averages')
    return parser.parse_args(argv)


def convert(args: argparse.Namespace) -> None:
    """Read, check and write.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a tensor is missing, unknown or does not fit.
    """
    out = args.out or args.checkpoint.with_name(
        f'{args.checkpoint.stem}_from-{args.source}.pth')
    if out.suffix != '.pth':
        raise ValueError('expected --out with the suffix .pth, which MMEngine '
                         f'reads, got {out}')
    averaged = True if args.ema else False if args.raw else None
    source = read_source(args.checkpoint, averaged)
    known = dict(
        num_heads=args.num_heads,
        window_size=args.window_size,
        pretrained_window_sizes=args.pretrained_window_size)
    backbone = read_backbone(
        source,
        SOURCES[args.source],
        known={
            name: value
            for name, value in known.items() if value
        })
    if args.img_size:
        backbone = replace(backbone, img_size=args.img_size)
    print(backbone.coverage)
    rest, parts = convert_rest(args.source, source, backbone)
    for coverage in parts:
        print(coverage)
        coverage.require('all that the model has beside its backbone')
    if rest:
        backbone = replace(
            backbone,
            left_out=tuple(name for name in backbone.left_out
                           if name not in source.others and name not in rest))
    if source.averaged:
        print('these are running averages (EMA)')
    if backbone.left_out:
        print('left out, no part of the backbone: '
              f'{summarise(backbone.left_out)}')
    passport = passport_of(backbone, source, args.checkpoint.name, args.source,
                           'mmpretrain')
    write_weights(out, backbone, TARGETS['mmpretrain'], passport, rest)
    report = write_report(out, passport, backbone, *parts)
    print(f'{out} is written; report: {report}\nuse it with\n')
    print(usage_of(backbone, 'mmpretrain', out))


def main() -> None:
    try:
        convert(parse_args())
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')


if __name__ == '__main__':
    main()
