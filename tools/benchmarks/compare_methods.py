# Copyright (c) greenmim authors. All rights reserved.
"""What does a method cost, and what does it learn in the same time?

Each config pre-trains on one folder of images, or a zip archive of it, for
the same budget, and the tool reports its speed, memory and loss. If the
folder holds train/ and test/ (or val/), each with a folder for every class,
it pre-trains on train/, and the frozen weights are tested by a linear probe
and by k-NN beside random ones, with --fine-tuning also fine-tuned; then the
class folders alone will do, of which every fifth image is tested on.

A finished run leaves a file in WORK_DIR/results. The same command resumes
where it was stopped.
"""
import argparse

from greenmim.apis.compare import CONFIGS, FINETUNING, NAME, PRETRAININGS
from greenmim.benchmarking.comparison.arguments import (make_parser, parse,
                                                        run_and_report)
from greenmim.benchmarking.comparison.methods import (MethodComparison, draw,
                                                      text)
from greenmim.command import run_tool

METHODS = {
    **PRETRAININGS, 'fastmim':
    str(CONFIGS / f'fastmim_{NAME}-1200i_folder-24px.py'),
    'green x fast':
    str(CONFIGS / f'greenmim-fast_{NAME}-1200i_folder-24px.py')
}


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        '--fine-tuning',
        dest='with_fine_tuning',
        action='store_true',
        help='fine-tune all weights as well, where there are labels')
    return parse(parser, METHODS, FINETUNING, 'work_dirs/compare_methods')


def main() -> None:
    run_and_report(parse_args(), MethodComparison, text, draw)


if __name__ == '__main__':
    run_tool(main)
