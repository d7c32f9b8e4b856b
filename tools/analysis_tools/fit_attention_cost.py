# Copyright (c) greenmim authors. All rights reserved.
"""Measure the coefficient of the cost model that chooses group sizes.

The result is the ``overhead`` of ``greenmim.ops.GroupPlanner``, what a slot
costs in units of one logit; see greenmim/benchmarking/attention_cost.py.
"""
import argparse

import torch

from greenmim.benchmarking.attention_cost import measure, show
from greenmim.benchmarking.results import finish


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', type=torch.device, default='cpu')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--num-heads', type=int, default=16)
    parser.add_argument(
        '--windows',
        type=int,
        nargs='+',
        default=[4, 5, 6, 7, 8, 10, 12, 14],
        help='sides of the windows, whose squares are the group sizes')
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--json', help='write the results to this file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    result = measure(args.windows, args.batch_size, args.num_heads,
                     args.device, args.backend, args.rounds)
    show(result)
    finish(args.device, [result], args.json)


if __name__ == '__main__':
    main()
