# Copyright (c) greenmim authors. All rights reserved.
"""Does pre-training help on your images? Compare with random weights.

The images are a folder with train/ and test/ (or val/), each with a folder
for every class; or just these folders, of which every fifth image is tested
on; or lists of images and classes; or a zip archive of it. For every seed

1. each method pre-trains on all training images, without their labels, for
   as many iterations as fit into the budget (timed once, in turns);
2. its weights, and random ones, are fine-tuned for the same iterations on
   the same labelled images, and tested; random ones once more for as long as
   pre-training and fine-tuning take together;
3. the same weights, frozen, are tested by a linear probe and by k-NN.

A finished run leaves a file in WORK_DIR/results. The same command resumes
where it was stopped.
"""
from typing import Optional, Sequence

from greenmim.benchmarking.comparison.arguments import (make_parser, parse,
                                                        run_and_report)
from greenmim.benchmarking.comparison.scratch import (ScratchComparison, draw,
                                                      text)
from .backbones import folder_of

CONFIGS = folder_of('configs') / 'benchmarks' / 'small_images'
NAME = 'swin-micro-p2-w4_1xb64-coslr'
FINETUNING = str(CONFIGS / f'{NAME}-300i_folder-32px.py')
PRETRAININGS = {
    method: str(CONFIGS / f'{method}_{NAME}-1200i_folder-32px.py')
    for method in ('greenmim', 'simmim')
}


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Compare pre-trainings with random weights.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        prog (str, optional): The program in its help. Defaults to None, the
            script.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument does not fit.
    """
    parser = make_parser(__doc__, PRETRAININGS, FINETUNING,
                         'work_dirs/compare')
    parser.prog = prog or parser.prog
    run_and_report(parse(parser, argv), ScratchComparison, text, draw)
