# Copyright (c) greenmim authors. All rights reserved.
"""Table and plot of accuracy over total compute from several comparisons.

Reads what `compare_with_scratch.py --json` wrote, one file for each budget
and number of labels, and replaces the part of a Markdown file between the
lines `<!-- over-compute:begin -->` and `<!-- over-compute:end -->`.
"""
import argparse
import json
from pathlib import Path

from greenmim.benchmarking.comparison.over_compute import draw, table
from greenmim.benchmarking.tables import write_marked


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', type=Path, nargs='+', metavar='JSON')
    parser.add_argument('--table', type=Path, help='the Markdown file')
    parser.add_argument('--plot', type=Path, help='the picture to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    reports = [json.loads(file.read_text('utf-8')) for file in args.files]
    content = table(reports)
    print(content)
    if args.table:
        write_marked(args.table, content, 'over-compute')
    if args.plot:
        draw(reports, args.plot)


if __name__ == '__main__':
    main()
