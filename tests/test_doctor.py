# Copyright (c) greenmim authors. All rights reserved.
"""``python -m greenmim`` in sound and broken environments."""
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from greenmim.__main__ import LIBRARIES, Library, examine

CHECKOUT = Path(__file__).resolve().parents[1]


def run(*folders):
    paths = [*map(str, folders), str(CHECKOUT)]
    return subprocess.run([sys.executable, '-m', 'greenmim'],
                          env=dict(
                              os.environ, PYTHONPATH=os.pathsep.join(paths)),
                          stdout=subprocess.PIPE,
                          text=True)


def test_a_sound_environment():
    result = run()
    assert result.returncode == 0, result.stdout
    assert 'Pre-training works here.' in result.stdout
    for name in ('torch', 'torchvision', 'mmengine', 'mmpretrain'):
        assert re.search(rf'\[ok\] {name} \d', result.stdout)
    assert re.search(r'\[ok\] mmcv(-lite)? 2\.\d', result.stdout)


def problems_of(printed):
    """The lines with something wrong, each with the line that fixes it."""
    return re.findall(r'^\[!!\] (.*)\n +fix: (.*)$', printed, re.M)


def test_a_library_that_does_not_match(tmp_path):
    """torchvision of another build fails like this."""
    (tmp_path / 'torchvision.py').write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")')
    result = run(tmp_path)
    assert result.returncode == 1
    (line, fix), = problems_of(result.stdout)
    assert line.startswith('torchvision ')
    assert 'operator torchvision::nms does not exist' in line
    assert fix == ('pip uninstall -y torch torchvision && '
                   'pip install "torch>=2.5" torchvision')
    # What imports it is not blamed.
    assert re.search(r'mmpretrain .* not tried, since it needs torchvision',
                     result.stdout)
    assert 'because of torchvision.' in result.stdout


@pytest.mark.parametrize('version', ['1.7.2', '2.4.0'])
def test_an_mmcv_that_mmpretrain_refuses(tmp_path, version):
    """Importing greenmim alone would fail."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').touch()
    (tmp_path / 'mmcv' /
     'version.py').write_text(f'__version__ = {version!r}\n')
    result = run(tmp_path)
    assert result.returncode == 1
    (line, fix), = problems_of(result.stdout)
    assert f'{version} is installed' in line
    assert fix == ('pip uninstall -y mmcv mmcv-lite && '
                   'pip install mmcv-lite==2.0.1')
    assert 'because of mmcv.' in result.stdout


def test_nothing_but_python():
    """Every needed library is missing, and the first line installs one."""
    result = subprocess.run([sys.executable, '-S', '-m', 'greenmim'],
                            env=dict(PYTHONPATH=str(CHECKOUT)),
                            stdout=subprocess.PIPE,
                            text=True)
    assert result.returncode == 1
    problems = problems_of(result.stdout)
    assert len(problems) == sum(library.needed for library in LIBRARIES)
    assert all('is not installed' in line for line, _ in problems)
    assert ('mmcv is not installed', 'pip uninstall -y mmcv mmcv-lite && '
            'pip install mmcv-lite==2.0.1') in problems


@pytest.mark.parametrize('complete', [True, False])
def test_the_environment_of_the_quick_start_is_not_active(tmp_path, complete):
    checkout = tmp_path / 'checkout'
    shutil.copytree(CHECKOUT / 'greenmim', checkout / 'greenmim')
    (checkout / '.venv').mkdir()
    if complete:
        (checkout / '.venv' / 'runtime.stamp').touch()
    result = subprocess.run([sys.executable, '-S', '-m', 'greenmim'],
                            env=dict(PYTHONPATH=str(checkout)),
                            cwd=checkout,
                            stdout=subprocess.PIPE,
                            text=True)
    last = result.stdout.splitlines()[-1]
    line = f'run "source {checkout}/.venv/bin/activate" and ask again.'
    assert last.endswith(line) == complete
    assert result.returncode == 1


@pytest.mark.parametrize('needed', [True, False])
def test_a_library_that_is_missing(needed):
    library = Library('no_such_module', ('no-such-package', ),
                      'pip install it', needed)
    found, fix = examine(library)
    assert 'no-such-package is not installed' in found
    assert fix == ('pip install it' if needed else '')


def test_a_library_that_is_too_old():
    library = Library(
        'torch', ('torch', ), 'pip install another', minimum=(99, 0))
    found, fix = examine(library)
    assert re.match(r'torch [\d.]+\S* is older than 99.0', found)
    assert fix == 'pip install another'


def test_every_requirement_is_examined_and_has_a_fix():
    setup = ConfigParser()
    setup.read(CHECKOUT / 'setup.cfg')
    required = {
        re.match(r'[\w-]+', line)[0]
        for line in setup['options']['install_requires'].splitlines() if line
    }
    needed = [library for library in LIBRARIES if library.needed]
    assert required <= {name for lib in needed for name in lib.packages}
    assert all(library.fix for library in needed)


def test_libraries_come_after_what_they_import():
    seen = set()
    for library in LIBRARIES:
        assert seen >= set(library.after), library.module
        seen.add(library.module)
