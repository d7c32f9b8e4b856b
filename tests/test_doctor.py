# Copyright (c) greenmim authors. All rights reserved.
"""``python -m greenmim`` in sound and broken environments."""
import os
import re
import subprocess
import sys
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


def test_a_library_that_does_not_match(tmp_path):
    """torchvision of another build fails like this."""
    (tmp_path / 'torchvision.py').write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")')
    result = run(tmp_path)
    assert result.returncode == 1
    line, fix = re.search(r'\[!!\] (torchvision .*)\n +fix: (.*)',
                          result.stdout).groups()
    assert 'operator torchvision::nms does not exist' in line
    assert fix.startswith('pip install torch torchvision')
    assert 'because of torchvision' in result.stdout


@pytest.mark.parametrize('needed', [True, False])
def test_a_library_that_is_missing(needed):
    library = Library('no_such_module', ('no-such-package', ),
                      'pip install it', needed)
    found, fix = examine(library)
    assert 'no-such-package is not installed' in found
    assert fix == ('pip install it' if needed else '')


def test_every_needed_library_has_a_fix():
    for library in LIBRARIES:
        assert library.fix or not library.needed
