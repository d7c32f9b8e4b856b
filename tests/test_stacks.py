# Copyright (c) greenmim authors. All rights reserved.
"""The stacks of versions: their table, their page and their workflow."""
import re
import subprocess
from configparser import ConfigParser

import pytest
import yaml

from tests.conftest import CHECKOUT
from tests.documents import Page

REQUIREMENTS = CHECKOUT / 'requirements'
STACKS = [
    line.split()
    for line in (REQUIREMENTS / 'stacks.txt').read_text().splitlines()
    if not line.startswith('#')
]
NAMES = [name for name, *_ in STACKS]


def load_script(monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKOUT / 'tools' / 'misc'))
    import record_stack
    return record_stack


def test_table_names_what_exists():
    setup = ConfigParser()
    setup.read(CHECKOUT / 'setup.cfg')
    supported = re.findall(r'Python :: (3\.\d+)',
                           setup['metadata']['classifiers'])
    for _, python, constraints, family in STACKS:
        assert python in supported
        assert constraints == '-' or (REQUIREMENTS / constraints).is_file()
        assert family in setup['options.extras_require']
    pythons = {name: python for name, python, *_ in STACKS}
    assert (pythons['oldest'], pythons['newest']) == (supported[0],
                                                      supported[-1])


def test_workflow_runs_every_stack():
    file = CHECKOUT / '.github' / 'workflows' / 'stacks.yml'
    job = yaml.safe_load(file.read_text())['jobs']['stack']
    matrix = [(one['name'], one['python'])
              for one in job['strategy']['matrix']['include']]
    assert matrix == [(name, python) for name, python, *_ in STACKS]


def test_core_exists():
    script = (CHECKOUT / 'tools' / 'run_stack.sh').read_text()
    core = re.search(r'^CORE=\((.*?)^\)', script, re.M | re.S)[1].split()
    assert len(core) > 5
    for name in core:
        path, _, function = name.partition('::')
        source = (CHECKOUT / path).read_text('utf-8')
        assert f'def {function or "test_"}' in source, name


def test_an_unknown_stack_is_refused():
    result = subprocess.run(
        ['bash', CHECKOUT / 'tools' / 'run_stack.sh', 'unheard-of'],
        capture_output=True,
        text=True)
    assert result.returncode == 1
    assert f"got 'unheard-of': {' '.join(NAMES)}" in result.stderr


def test_table_is_that_of_the_results(monkeypatch):
    script = load_script(monkeypatch)
    records = script.read_records(CHECKOUT / 'benchmarks' / 'stacks')
    names = [one['stack'] for one in records]
    assert names == [name for name in NAMES if name in names]
    assert f'{script.table_of(records)}\n<!-- stacks:end -->' in Page(
        'docs/stacks.md').text
    for one in records:
        assert one['passed'] > 100 and one['failed'] == 0, one['stack']


@pytest.mark.parametrize('outcome', ['passed', 'failed', 'skipped'])
def test_a_record(monkeypatch, tmp_path, outcome):
    script = load_script(monkeypatch)
    child = dict(passed='', failed='<failure/>', skipped='<skipped/>')[outcome]
    report = tmp_path / 'report.xml'
    report.write_text('<testsuites><testsuite><testcase classname='
                      f'"tests.test_one" time="1">{child}</testcase>'
                      '</testsuite></testsuites>')
    one = script.record(
        'newest', report, seconds=61, cpu_seconds=99, installing=100)
    assert {key: one[key] for key in ('passed', 'failed', 'skipped')} == {
        **dict(passed=0, failed=0, skipped=0), outcome: 1
    }  # yapf: disable
    table = script.table_of([one])
    assert '| seconds of tests | 61 |' in table
    assert '| CPU seconds of tests | 99 |' in table
    assert re.search(r'\| PyTorch \| torch 2\.\d+', table)
