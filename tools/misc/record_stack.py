# Copyright (c) greenmim authors. All rights reserved.
"""Record what passed on a stack of versions, for docs/stacks.md.

    record_stack.py NAME REPORT.xml --seconds S --cpu-seconds S --installing S

is called by tools/run_stack.sh, in the environment of the stack.
"""
import argparse
import json
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import List

import torch
from summarise_tests import read_report

from greenmim.benchmarking.results import (environment, table, write_json,
                                           write_marked)

ROOT = Path(__file__).resolve().parents[2]
# Column of the table: the packages of which one is installed.
LIBRARIES = {
    'PyTorch': ['torch'],
    'NumPy': ['numpy'],
    'OpenCV': ['opencv-python', 'opencv-python-headless'],
    'MMEngine': ['mmengine', 'onedl-mmengine'],
    'mmcv': ['mmcv', 'mmcv-lite', 'onedl-mmcv'],
    'MMPretrain': ['mmpretrain', 'onedl-mmpretrain'],
    'MMSelfSup': ['mmselfsup'],
    'MMDetection': ['mmdet', 'onedl-mmdetection'],
    'MMSegmentation': ['mmsegmentation', 'onedl-mmsegmentation'],
    'setuptools': ['setuptools'],
}


def installed(packages: List[str]) -> str:
    """The first of the packages that is installed, with its version."""
    for package in packages:
        try:
            return f'{package} {version(package)}'
        except PackageNotFoundError:
            pass
    return ''


def record(name: str, report: Path, **seconds: int) -> dict:
    """What ran, on what, how it ended, and what took how many seconds."""
    total: Counter = Counter()
    for counts in read_report(report).values():
        total.update(counts)
    return dict(
        stack=name,
        environment=environment(torch.device('cpu')),
        libraries={
            column: installed(packages)
            for column, packages in LIBRARIES.items()
        },
        passed=total['passed'],
        failed=total['failed'],
        skipped=total['skipped'],
        **seconds)


def table_of(records: List[dict]) -> str:
    """The table of docs/stacks.md, a stack a column."""
    if not records:
        return 'No stack was run in full yet.'
    columns = [['', 'Python', *LIBRARIES, 'passed', 'failed', 'skipped',
                'seconds of tests', 'CPU seconds of tests',
                'seconds of installation', 'processor',
                'date']]  # yapf: disable
    for one in records:
        where = one['environment']
        columns.append([
            f'`{one["stack"]}`', where['python'],
            *(one['libraries'][name] or '-' for name in LIBRARIES),
            *(str(one[key]) for key in ('passed', 'failed', 'skipped',
                                        'seconds', 'cpu_seconds',
                                        'installing')),
            where['hardware'].split(',')[0], where['date']
        ])  # yapf: disable
    header, *rows = map(list, zip(*columns))
    return table(header, rows)


def read_records(folder: Path) -> List[dict]:
    """The records of all stacks, in the order of requirements/stacks.txt."""
    names = [
        line.split()[0] for line in (ROOT / 'requirements' /
                                     'stacks.txt').read_text().splitlines()
        if not line.startswith('#')
    ]
    files = [folder / f'{name}.json' for name in names]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('name')
    parser.add_argument('report', type=Path, help="pytest's JUnit report")
    parser.add_argument('--seconds', type=int, help='that the tests took')
    parser.add_argument(
        '--cpu-seconds', type=int, help='the same, of all processors')
    parser.add_argument(
        '--installing', type=int, help='seconds that the installation took')
    args = parser.parse_args()
    folder = ROOT / 'benchmarks' / 'stacks'
    write_json(
        record(
            args.name,
            args.report,
            seconds=args.seconds,
            cpu_seconds=args.cpu_seconds,
            installing=args.installing), folder / f'{args.name}.json')
    write_marked(ROOT / 'docs' / 'stacks.md', table_of(read_records(folder)),
                 'stacks')


if __name__ == '__main__':
    main()
