# Copyright (c) greenmim authors. All rights reserved.
"""The Dockerfile: what it copies, and its steps in an environment."""
import os
import re
import shutil
import subprocess
import sys
from shutil import which

import pytest

from tests.conftest import CHECKOUT, skip_or_fail
from tests.micro import save_images

TEXT = (CHECKOUT / 'Dockerfile').read_text()


def instructions():
    """(name, arguments) of every instruction."""
    text = re.sub(r'^#.*\n', '', TEXT, flags=re.M).replace('\\\n', ' ')
    return [
        tuple(line.split(None, 1)) for line in text.splitlines()
        if line.strip()
    ]


def test_one_argument_chooses_the_device():
    names = [name for name, _ in instructions()]
    assert names.count('ARG') == 1 and 'ARG DEVICE=cuda' in TEXT
    assert 'whl/cpu' in TEXT and '"$DEVICE" = cpu' in TEXT


def test_what_is_left_out_is_not_needed():
    """The image is built of what .dockerignore lets through."""
    ignored = (CHECKOUT / '.dockerignore').read_text().split()
    for name in ('greenmim', 'configs', 'tools', 'requirements', 'setup.py',
                 'setup.cfg', 'metafile.yml', 'README.md'):
        assert name not in ignored


def test_system_packages_are_those_of_debian():
    """pip installs the rest; only their names are looked up."""
    line, = [text for name, text in instructions()
             if name == 'RUN' and 'apt-get install' in text]  # yapf: disable
    packages = re.search(r'recommends (.*?) &&', line)[1].split()
    assert packages
    if which('apt-cache') is None:
        pytest.skip('not on Debian')
    known = subprocess.run(['apt-cache', 'pkgnames'],
                           capture_output=True,
                           text=True).stdout.split()
    if 'libgl1' not in known:
        pytest.skip('the lists of packages are not there (apt-get update)')
    assert set(packages) <= set(known)


@pytest.mark.slow
def test_steps_make_an_environment(tmp_path):
    """As a script, with the packages of the index, in a new environment."""
    source, work = tmp_path / 'src', tmp_path / 'work'
    work.mkdir()
    shutil.copytree(
        CHECKOUT,
        source,
        ignore=shutil.ignore_patterns('.git', '.venv*', 'build', 'work_dirs',
                                      '__pycache__', '.mim', '*.egg-info'))
    venv = tmp_path / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', venv], check=True)
    environment = dict(
        os.environ,
        DEVICE='cuda',
        VIRTUAL_ENV=str(venv),
        PATH=f'{venv / "bin"}{os.pathsep}{os.environ["PATH"]}')
    for name in ('PYTHONPATH', 'PYTHONHOME'):
        environment.pop(name, None)
    folder = tmp_path
    for name, text in instructions():
        if name == 'WORKDIR':
            folder = work if text == '/work' else source
        elif name == 'ENV':
            environment.update([text.split('=')])
        elif name == 'RUN' and 'apt-get' not in text:
            done = subprocess.run(['bash', '-ec', text],
                                  cwd=folder,
                                  env=environment,
                                  stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT,
                                  text=True)
            if 'connection' in done.stdout.lower() and done.returncode:
                skip_or_fail('no package index is reached')
            assert done.returncode == 0, done.stdout[-3000:]
    save_images(tmp_path / 'data', 4, (150, 140))
    done = subprocess.run([
        'greenmim', 'pretrain', tmp_path / 'data', '--backbone', 'swin-micro',
        '--steps', '2', '--batch-size', '2'
    ],
                          cwd=work,
                          env=environment,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert list((work / 'work_dirs').glob('swin-micro_1/*.pth'))
