# Copyright (c) greenmim authors. All rights reserved.
"""Print which test file ran in which environment, and for how long.

    python tools/misc/summarise_tests.py main.xml downstream.xml

reads pytest's JUnit reports, each named by its environment.
"""
import argparse
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path
from typing import DefaultDict

ROW = '{:<12} {:<58} {:>6} {:>7} {:>6} {:>8}'


def read_report(report: Path) -> DefaultDict[str, Counter]:
    """Count the outcomes and seconds of every test file in a report."""
    files: DefaultDict[str, Counter] = defaultdict(Counter)
    for case in ElementTree.parse(report).iter('testcase'):
        # The dotted path of the file, then classes; files start with test_.
        parts = case.get('classname', '').split('.')
        names = [i for i, part in enumerate(parts) if part.startswith('test_')]
        file = '/'.join(parts[:names[-1] + 1] if names else parts)
        outcomes = {child.tag for child in case}
        if outcomes & {'failure', 'error'}:
            outcome = 'failed'
        elif 'skipped' in outcomes:
            outcome = 'skipped'
        else:
            outcome = 'passed'
        files[file][outcome] += 1
        files[file]['seconds'] += float(case.get('time', 0))
    return files


def print_row(environment: str, file: str, counts: Counter) -> None:
    print(
        ROW.format(environment, file, counts['passed'], counts['skipped'],
                   counts['failed'], f'{counts["seconds"]:.1f}'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('reports', nargs='+', type=Path)
    args = parser.parse_args()
    print(
        ROW.format('environment', 'tests', 'passed', 'skipped', 'failed',
                   'seconds'))
    grand_total: Counter = Counter()
    for report in sorted(args.reports, reverse=True):
        total: Counter = Counter()
        for file, counts in sorted(read_report(report).items()):
            print_row(report.stem, file, counts)
            total.update(counts)
        print_row(report.stem, 'all', total)
        grand_total.update(total)
    print_row('all', 'all', grand_total)


if __name__ == '__main__':
    main()
