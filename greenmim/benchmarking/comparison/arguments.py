# Copyright (c) greenmim authors. All rights reserved.
"""The arguments of all comparisons of pre-trainings."""
import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Type

from greenmim.options import ReadOptions, read_options
from ..results import write_json
from .base import BUDGET, LONGER, SCRATCH, Comparison, write_report


def make_parser(description: Optional[str],
                with_run: bool = False,
                detection: bool = False) -> argparse.ArgumentParser:
    """A parser of what all comparisons have in common.

    With ``with_run`` a finished pre-training may be named before the images.
    With ``detection`` labels are counted by images, not by classes.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    if with_run:
        parser.add_argument(
            'run',
            type=Path,
            nargs='?',
            help='the folder of a finished pre-training, or its checkpoint: '
            'compare its weights, and pre-train nothing')
    parser.add_argument(
        'data', type=Path, nargs='?', help='the folder or zip archive')
    parser.add_argument(
        '--data', type=Path, dest='folder', help='the same, by name')
    parser.add_argument(
        '--pretrain',
        nargs='*',
        metavar='NAME=CONFIG',
        type=name_and_config,
        help='pre-training configs (default: ' +
        ('the quick start on a folder' if detection else 'the configs of a '
         'Swin for images of 32 px in configs/benchmarks/small_images') + ')')
    parser.add_argument(
        '--finetune',
        metavar='CONFIG',
        help='config of the fine-tuning, with the same backbone')
    parser.add_argument(
        '--budget',
        type=float,
        help='seconds of every pre-training, without a GPU of CPU time, so '
        f'that a shared machine does no harm (default: {BUDGET:g})' +
        ('; with RUN, seconds on the clock by which random weights are '
         'trained longer, 0 for no such runs (default: what the run took)'
         if with_run else ''))
    if detection:
        parser.set_defaults(labels_per_class=None)
        parser.add_argument(
            '--labelled-images',
            type=int,
            metavar='N',
            help='labelled images, drawn anew for every seed (default: all)')
    else:
        parser.add_argument(
            '--labels-per-class',
            type=int,
            metavar='N',
            help='labelled images of every class (default: all)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='for the results (default: a folder in work_dirs)')
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
          pretrain: Dict[str, str],
          finetune: str,
          work_dir: str,
          argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Parse, and fill in what is not given.

    With a run, pre-trainings, fine-tuning and budget stay None.
    """
    args = parser.parse_args(argv)
    run = getattr(args, 'run', None)
    if run is not None and args.data is None and args.folder is None:
        args.data, args.run, run = run, None, None  # the only word
    if (args.data is None) == (args.folder is None):
        parser.error('expected the images, as DATA or as --data DATA')
    args.data = args.data or args.folder
    if run is None:
        defaults: Dict[str, Any] = dict(
            pretrain=pretrain.items(), finetune=finetune, budget=BUDGET)
    else:
        defaults = dict(pretrain={})
        work_dir = f'{work_dir}_{run.resolve().stem}'
        if args.pretrain is not None or args.pretrain_options:
            parser.error('expected RUN or --pretrain, got both')
    for name, value in dict(defaults, work_dir=Path(work_dir)).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
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
