# Copyright (c) greenmim authors. All rights reserved.
"""Import a checkpoint of another library: convert it to our names.

The result initialises a backbone of this project or MMPretrain by
``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``, and
``greenmim export`` reads it. The decoder and mask token of GreenMIM, SimMIM,
FastMIM, MAE and transformers are converted as well, so that pre-training can
continue; of a fine-tuned model the classifier, for an ``ImageClassifier``.

Swin, Swin V2, ViT, ViT with the relative positions of SimMIM and BEiT, PVT
v2, CMT, ConvNeXt (V1 and V2), Twins and HiViT are recognised by their
tensors.
"""
import argparse
from dataclasses import replace
from pathlib import Path
from typing import Optional, Sequence

from greenmim.command import add_trust_option
from greenmim.weights import (SOURCES, add_ema_options,
                              convert_decoder_or_head, find_weights,
                              loading_code, of_model, read_backbone,
                              read_source, summarise, write_weights)


def parse_args(argv: Optional[Sequence[str]],
               prog: Optional[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog, description='Import a checkpoint of another library')
    parser.add_argument(
        'checkpoint',
        type=Path,
        help='.pth or .safetensors; of transformers, also the folder')
    parser.add_argument(
        '--from',
        dest='source',
        choices=SOURCES,
        required=True,
        help='who wrote the file. The file does not record the order of its '
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
        help='size of the images in pre-training, to be recorded; by '
        'default what the file records')
    parser.add_argument(
        '--num-heads',
        type=int,
        nargs='+',
        help='attention heads of a ViT, HiViT or Twins, for Twins one number '
        'for each stage, which the tensors do not determine; by default one '
        'for 64 channels, 32 in Twins-SVT, and 6 in all for a pre-training '
        'of FastMIM')
    parser.add_argument(
        '--window-size',
        type=int,
        nargs='+',
        help='windows of a Swin V2 or Twins-SVT, one for all stages or one '
        "for each, where the file does not have them, as timm's")
    parser.add_argument(
        '--pretrained-window-size',
        type=int,
        nargs='+',
        help='windows by which its relative positions are scaled, in the '
        'same way; by default those of --window-size')
    parser.add_argument(
        '--licence',
        help='licence of the weights, to be recorded in the model card of '
        'this file and of all exports of it')
    add_ema_options(parser)
    add_trust_option(parser)
    return parser.parse_args(argv)


def convert(args: argparse.Namespace) -> None:
    """Read, check and write.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a tensor is missing, unexpected or does not match.
    """
    checkpoint, described = args.checkpoint, None
    if args.source == 'transformers':
        checkpoint, described = find_weights(args.checkpoint)
    out = args.out or args.checkpoint.with_name(
        f'{args.checkpoint.stem}_from-{args.source}.pth')
    if out.suffix != '.pth':
        raise ValueError('expected --out with the suffix .pth, which MMEngine '
                         f'reads, got {out}')
    source = read_source(checkpoint, args.averaged, args.prefix)
    if args.source == 'transformers':
        source = of_model(source)
    heads = args.num_heads
    hints = dict(
        num_heads=heads[0] if heads and len(heads) == 1 else heads,
        window_size=args.window_size,
        pretrained_window_sizes=args.pretrained_window_size)
    hints = {name: value for name, value in hints.items() if value}
    backbone = read_backbone(
        source, SOURCES[args.source], hints=hints, transformers=described)
    if args.img_size:
        backbone = replace(backbone, img_size=args.img_size)
    print(backbone.coverage)
    others, coverages = convert_decoder_or_head(args.source, source, backbone)
    for coverage in coverages:
        print(coverage)
        coverage.require('all tensors besides the backbone')
    if others:
        left_out = tuple(name for name in backbone.left_out
                         if name not in source.others and name not in others)
        backbone = replace(backbone, left_out=left_out)
    if backbone.added:
        print('added with weight 1 and bias 0, since the file does not have '
              f'them: {", ".join(backbone.added)}')
    if source.averaged:
        print('these are running averages (EMA)')
    if backbone.left_out:
        print('left out, not part of the backbone: '
              f'{summarise(backbone.left_out)}')
    report = write_weights(out, backbone, 'mmpretrain', source, args.source,
                           others, coverages, args.licence)
    print(f'wrote {out}; report: {report}\nuse it with\n')
    print(loading_code(backbone, 'mmpretrain', out.resolve()))


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Convert a checkpoint of another library.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        prog (str, optional): The program in its help. Defaults to None, the
            script.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument does not fit.
    """
    convert(parse_args(argv, prog))
