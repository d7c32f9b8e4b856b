# Copyright (c) greenmim authors. All rights reserved.
"""Draw benchmarks/*.json and write their tables into the documents.

The pictures go to docs/images, the tables between the lines

    <!-- benchmark:begin -->
    <!-- benchmark:end -->

of README.md and docs/benchmarks.md, so that no number is typed by hand. What a
file is used for is the first word of its name, see benchmarks/README.md.
"""
import argparse
from pathlib import Path

from greenmim.benchmarking.pages import MARK, docs_block, load, readme_block
from greenmim.benchmarking.plots import draw_all
from greenmim.benchmarking.results import write_marked


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--root',
        type=Path,
        default=Path(__file__).parents[2],
        help='folder that holds benchmarks, docs and README.md (default: '
        'this checkout)')
    return parser.parse_args()


def main() -> None:
    root = parse_args().root
    results = load(root / 'benchmarks')
    draw_all(results, root / 'docs' / 'images')
    write_marked(root / 'README.md', readme_block(results), MARK)
    write_marked(root / 'docs' / 'benchmarks.md', docs_block(results), MARK)


if __name__ == '__main__':
    main()
