# Copyright (c) greenmim authors. All rights reserved.
"""The arguments of all comparisons of pre-trainings."""
import argparse
from dataclasses import fields
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence, Tuple, Type

from greenmim.options import ReadOptions, read_options
from ..results import write_json
from .base import LONGER, SCRATCH, Comparison, write_report


def make_parser(description: Optional[str], pretrain: Dict[str, str],
                finetune: str, work_dir: str) -> argparse.ArgumentParser:
    """A parser of what all comparisons have in common, with these defaults."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'data', type=Path, nargs='?', help='the folder or zip archive')
    parser.add_argument(
        '--data', type=Path, dest='folder', help='the same, by name')
    parser.add_argument(
        '--pretrain',
        nargs='*',
        metavar='NAME=CONFIG',
        default=pretrain.items(),
        type=name_and_config,
        help='pre-training configs (default: the configs of a Swin for images '
        'of 32 px in configs/benchmarks/small_images)')
    parser.add_argument(
        '--finetune',
        metavar='CONFIG',
        default=finetune,
        help='config of the fine-tuning, with the same backbone')
    parser.add_argument(
        '--budget',
        type=float,
        default=240,
        help='seconds of every pre-training, without a GPU of CPU time, so '
        'that a shared machine does no harm (default: %(default)s)')
    parser.add_argument(
        '--labels-per-class',
        type=int,
        metavar='N',
        help='labelled images of every class (default: all)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path(work_dir))
    parser.add_argument(
        '--pretrained',
        type=Path,
        metavar='WORK_DIR',
        help='take the pre-trainings of the comparison in this folder, which '
        'had the same settings but other labels or another fine-tuning')
    parser.add_argument(
        '--minutes',
        type=float,
        default=float('inf'),
        help='start no run after this many minutes; the same command resumes')
    parser.add_argument(
        '--json', type=Path, help='default: WORK_DIR/comparison.json')
    parser.add_argument(
        '--table',
        type=Path,
        help='Markdown file; if it exists, its part between the marked lines '
        'is replaced (default: WORK_DIR/comparison.md)')
    parser.add_argument(
        '--plot', type=Path, help='default: WORK_DIR/comparison.png')
    for name, overridden in (('--pretrain-options',
                              'the pre-training configs'),
                             ('--finetune-options', 'the fine-tuning config'),
                             ('--scratch-options',
                              'the fine-tuning config for random weights, '
                              'whose best recipe may be another one')):
        parser.add_argument(
            name,
            nargs='+',
            action=ReadOptions,
            default={},
            metavar='KEY=VALUE',
            help=f'override settings of {overridden}')
    return parser


def parse(parser: argparse.ArgumentParser,
          argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Parse, and name the files that are not named."""
    args = parser.parse_args(argv)
    if (args.data is None) == (args.folder is None):
        parser.error('expected the images, as DATA or as --data DATA')
    args.data = args.data or args.folder
    args.pretrain = dict(args.pretrain)
    for name in ('pretrain', 'finetune', 'scratch'):
        options = getattr(args, f'{name}_options')
        setattr(args, f'{name}_options', read_options(options, None))
    for name, suffix in dict(json='json', table='md', plot='png').items():
        if getattr(args, name) is None:
            setattr(args, name, args.work_dir / f'comparison.{suffix}')
    return args


def name_and_config(text: str) -> Tuple[str, str]:
    name, _, config = text.partition('=')
    if not config or name in (SCRATCH, LONGER):
        raise argparse.ArgumentTypeError(
            f'expected NAME=CONFIG with a name other than {SCRATCH!r} and '
            f'{LONGER!r}, got {text!r}')
    return name, config


def run_and_report(args: argparse.Namespace, kind: Type[Comparison],
                   text: Callable[[dict], str], draw: Callable[[dict, Path],
                                                               None]) -> None:
    """Do the runs that have no result yet, then report all."""
    comparison = kind(**{
        one.name: getattr(args, one.name)
        for one in fields(kind) if one.init
    })

    def write_json_file() -> None:
        # What is finished by then: a comparison may take days.
        if comparison.result_file('speed').exists():
            write_json(comparison.report(), args.json)

    if not comparison.do_runs(args.minutes, write_json_file):
        return
    report = comparison.report()
    write_report(report, text(report), args.json, args.table)
    draw(report, args.plot)
    print(f'{text(report)}\n\nwritten: {args.json}, {args.table}, {args.plot}')
