# Copyright (c) greenmim authors. All rights reserved.
"""``python -m greenmim`` in sound and broken environments."""
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from greenmim import doctor, requirements
from greenmim.doctor import LIBRARIES, Library, examine
from tests.conftest import CHECKOUT


def run(*folders, extras=(), checkout=CHECKOUT, bare=False):
    """Run the doctor; a bare environment has no site-packages."""
    paths = [*map(str, folders), str(checkout)]
    environment = {} if bare else os.environ
    return subprocess.run(
        [sys.executable, *['-S'] * bare, '-m', 'greenmim', *extras],
        env=dict(environment, PYTHONPATH=os.pathsep.join(paths)),
        cwd=checkout,
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
    line, fix = next(
        found for found in problems_of(result.stdout)
        if found[0].startswith('torchvision '))
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
    line, fix = next(
        found for found in problems_of(result.stdout)
        if found[0].startswith('mmcv'))
    assert f'{version} is installed' in line
    assert fix == ('pip uninstall -y mmcv mmcv-lite && '
                   'pip install "mmcv-lite>=2.0.1,<2.4"')
    assert 'because of mmcv.' in result.stdout


def test_nothing_but_python():
    """Every needed library is missing, and the first line installs one."""
    result = run(bare=True)
    assert result.returncode == 1
    problems = problems_of(result.stdout)
    # All but Python itself
    assert len(problems) == sum(not one.extra for one in LIBRARIES) - 1
    assert all('is not installed' in line for line, _ in problems)
    assert ('mmcv is not installed', 'pip uninstall -y mmcv mmcv-lite && '
            'pip install "mmcv-lite>=2.0.1,<2.4"') in problems
    assert ('mmpretrain is not installed',
            'pip install "mmpretrain>=1.2"') in problems


@pytest.mark.parametrize('complete', [True, False])
def test_the_environment_of_the_quick_start_is_not_active(tmp_path, complete):
    checkout = tmp_path / 'checkout'
    shutil.copytree(CHECKOUT / 'greenmim', checkout / 'greenmim')
    (checkout / '.venv').mkdir()
    if complete:
        (checkout / '.venv' / 'runtime.stamp').touch()
    result = run(checkout=checkout, bare=True)
    last = result.stdout.splitlines()[-1]
    line = f'run "source {checkout}/.venv/bin/activate" and ask again.'
    assert last.endswith(line) == complete
    assert result.returncode == 1


@pytest.mark.parametrize('extras, needed', [([], False), (['test'], True)])
def test_a_library_that_is_missing(extras, needed):
    library = Library('no_such_module', ('no-such-package', ),
                      'pip install it', 'test')
    found, fix = examine(library, (), extras)
    assert 'no-such-package is not installed' in found
    assert fix == ('pip install it' if needed else '')


@pytest.mark.parametrize('extra', ['tiff', 'heif', 'dicom', 'geo'])
def test_a_reader_of_images_that_is_missing(extra, monkeypatch):
    """The line names the kind of image and the extra."""
    library, = (one for one in LIBRARIES if one.extra == extra)
    assert requirements.requirements(extra) == list(library.packages)
    monkeypatch.setattr(doctor, 'installed', lambda packages: '')
    assert examine(library) == (
        f'{library.packages[0]} is not installed (needed for {library.reads} '
        f'alone: pip install "greenmim[{extra}]")', '')
    assert examine(library, (),
                   [extra])[1] == (f'pip install {library.packages[0]}')


def test_a_library_that_is_too_old(monkeypatch):
    monkeypatch.setattr(doctor, 'requirements', lambda *extras: ['torch>=99'])
    library = Library('torch', ('torch', ), 'pip install another')
    found, fix = examine(library)
    assert re.match(r'torch [\d.]+\S* is installed, but torch>=99 is', found)
    assert fix == 'pip install another'


def test_gpus():
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_name=lambda i: 'H100')
    torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda='12.4'))
    assert doctor.check_torch(torch) == ('2 GPU (H100), CUDA 12.4', '')
    cuda.is_available = lambda: False
    assert doctor.check_torch(torch) == (
        'no GPU is visible: trains on the CPU', '')


@pytest.mark.parametrize('error, found, is_fixed', [
    (None, 'with compiled operators', False),
    (ImportError('undefined symbol'), 'do not load: undefined symbol', True),
    (ModuleNotFoundError('mmcv._ext'), 'without the compiled', False),
])
def test_operators_of_mmcv(monkeypatch, error, found, is_fixed):

    def import_module(name):
        assert name == 'mmcv._ext'
        if error is not None:
            raise error

    monkeypatch.setattr(doctor.importlib, 'import_module', import_module)
    text, fix = doctor.check_mmcv(None)
    assert found in text and bool(fix) == is_fixed
    if is_fixed:
        assert fix.startswith('pip uninstall -y') and 'pip install' in fix


@pytest.mark.parametrize('click, is_openmim, is_fixed', [
    ('8.3.1', True, True),
    ('8.2.1', True, False),
    ('8.3.1', False, False),
])
def test_the_click_of_mim(monkeypatch, click, is_openmim, is_fixed):
    monkeypatch.setattr(doctor, 'version', lambda name: click)
    monkeypatch.setattr(doctor, 'is_installed', lambda name: is_openmim)
    text, fix = doctor.check_mim(None)
    assert fix == 'pip install "click<8.3"' * is_fixed
    assert (f'fails with click {click}' in text) == is_fixed


def test_windows(monkeypatch, capsys):
    """Where the standard library has no module ``resource``."""
    monkeypatch.setitem(sys.modules, 'resource', None)
    monkeypatch.setattr(doctor, 'LIBRARIES', LIBRARIES[:1])
    assert doctor.main([]) == 1
    (line, fix), = problems_of(capsys.readouterr().out)
    assert line.startswith('Python 3') and 'resource' in line
    assert fix.startswith('wsl')


def test_extras(monkeypatch, capsys):
    """What the environment of the tests needs, and greenmim itself."""
    versions = dict(pytest='9', greenmim='0.1', click='8.3.1', setuptools='65')

    def version(name):
        if name in versions:
            return versions[name]
        raise doctor.PackageNotFoundError

    monkeypatch.setattr(doctor, 'version', version)
    monkeypatch.setattr(doctor, 'LIBRARIES', [])
    assert doctor.main(['mmselfsup', 'test']) == 1
    out = capsys.readouterr().out
    problems = dict(problems_of(out))
    assert problems['click 8.3.1 is installed, but click<8.3 is needed'] == (
        'pip install "click<8.3"')
    assert 'lmdb is not installed' in problems
    assert out.count('setuptools 65') == 1
    assert 'pip install "setuptools<81" "setuptools>=70.1"' in out
    assert '[ok] pytest 9\n' in out and '[ok] greenmim 0.1\n' in out
    del versions['greenmim']
    doctor.main(['test'])
    problems = dict(problems_of(capsys.readouterr().out))
    assert problems['greenmim is not installed'] == 'pip install -e .'
    assert not any(line.startswith('click') for line in problems)
    with pytest.raises(SystemExit):
        doctor.main(['no-extra'])
    assert "got 'no-extra'" in capsys.readouterr().err


@pytest.mark.parametrize('line, version, met', [
    ('torch>=2.5', '2.5.0+cu124', True),
    ('torch>=2.5', '2.4.1', False),
    ('torch>=2.5', '2.11', True),
    ('click<8.3', '8.3.0', False),
    ('click<8.3', '8.2.9', True),
    ('mmcv>=2.1,<2.2', '2.2.0rc1', False),
    ('mmcv>=2.1,<2.2', '2.1.0', True),
    ('mmdet==3.3.0', '3.2.0', True),
    ('numpy', '1', True),
])
def test_bounds(line, version, met):
    assert requirements.is_met(line, version) == met
    assert requirements.package_of(line) in ('torch', 'click', 'mmcv', 'mmdet',
                                             'numpy')


def test_requirements_of_an_installation(monkeypatch, tmp_path):
    """Where there is no setup.cfg, from the metadata, and the same."""
    extras = ('mmselfsup', 'downstream')
    checkout = [
        requirements.requirements(''),
        requirements.requirements(*extras)
    ]
    metadata = checkout[0] + [
        f'{line}; extra == "{extra}"' for extra in extras
        for line in requirements.requirements(extra)
    ]
    monkeypatch.setattr(requirements, 'SETUP', tmp_path / 'setup.cfg')
    monkeypatch.setattr(requirements, 'requires', lambda name: metadata)
    assert checkout == [
        requirements.requirements(''),
        requirements.requirements(*extras)
    ]
    assert requirements.requirement('torch') == '"torch>=2.5"'

    # Neither a checkout nor installed.

    def missing(name):
        raise requirements.PackageNotFoundError(name)

    monkeypatch.setattr(requirements, 'requires', missing)
    assert requirements.requirements('', *extras) == []
    assert requirements.requirement('torch') == 'torch'


def test_every_requirement_is_examined_and_has_a_fix():
    required = set(map(requirements.package_of, requirements.requirements('')))
    needed = [library for library in LIBRARIES if not library.extra]
    assert required <= {name for lib in needed for name in lib.packages}
    assert all(library.fix for library in needed)


def test_libraries_come_after_what_they_import():
    seen = set()
    for library in LIBRARIES:
        assert seen >= set(library.after), library.module
        seen.add(library.module)
