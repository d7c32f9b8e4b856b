# Copyright (c) greenmim authors. All rights reserved.
"""Time and quality of the grouping alone: no model, no images.

A plan holds the index tensors of all stages and shifts of a Swin Transformer
for one mask, or for the masks of a batch. Its time includes drawing the mask.
Eager and sdpa attention need further indices for every head, computed from
the plan on the device once per step; the table shows what they take on the
CPU, for as many images as masks. The cost of the attention is compared with a
bound, see greenmim/benchmarking/grouping.py.
"""
import argparse
from itertools import product

import torch

from greenmim.benchmarking.grouping import time_grouping
from greenmim.benchmarking.pages import grouping_section
from greenmim.benchmarking.results import finish


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--image-size', type=int, nargs='+', default=[224, 512, 1024])
    parser.add_argument('--window', type=int, nargs='+', default=[7, 14])
    parser.add_argument(
        '--num-masks',
        type=int,
        nargs='+',
        default=[1],
        help='masks of a plan: 1 for one that the batch shares, or the batch '
        'size (default: 1)')
    parser.add_argument('--mask-ratio', type=float, default=0.75)
    parser.add_argument(
        '--depths',
        type=int,
        nargs='+',
        default=[2, 2, 18, 2],
        help='blocks of every stage (default: those of Swin-B)')
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--json', help='write the results to this file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    results = [
        time_grouping(*setting, args.mask_ratio, args.depths, args.rounds)
        for setting in product(args.image_size, args.window, args.num_masks)
    ]
    print(grouping_section(results))
    finish(torch.device('cpu'), results, args.json)


if __name__ == '__main__':
    main()
