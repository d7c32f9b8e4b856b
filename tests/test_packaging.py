# Copyright (c) greenmim authors. All rights reserved.
"""What an install holds, and what an import checks."""
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml

import greenmim
from greenmim.requirements import FAMILIES, package_of
from tests.conftest import CHECKOUT, skip_or_fail
from tests.micro import save_images
from tests.processes import cpu_environment

RECIPE = 'greenmim_swin-base_16xb128-amp-coslr-100e_in1k.py'


@pytest.fixture()
def checkout(tmp_path):
    """A copy to build in, since builds leave files in the checkout."""
    copy = tmp_path / 'checkout'
    copy.mkdir()
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'MANIFEST.in',
                 'README.md', 'LICENSE', 'metafile.yml', 'CHANGELOG.md',
                 'CITATION.cff'):
        shutil.copy(CHECKOUT / name, copy)
    for name in ('greenmim', 'configs', 'tools', 'requirements'):
        shutil.copytree(
            CHECKOUT / name,
            copy / name,
            ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    return copy


def run(checkout, *arguments, **environment):
    return subprocess.run([sys.executable, *arguments],
                          cwd=checkout,
                          env=dict(os.environ, **environment),
                          check=True,
                          capture_output=True,
                          text=True).stdout


def files_below(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*') if path.is_file()
    }


def expected_mim_files(checkout):
    expected = {'model-index.yml'}
    for name in ('configs', 'tools'):
        expected |= {f'{name}/{file}' for file in files_below(checkout / name)}
    assert {f'configs/{RECIPE}', 'tools/train.py'} <= expected
    return expected


def mim_files_in(wheel):
    prefix = 'greenmim/.mim/'
    names = zipfile.ZipFile(wheel).namelist()
    return {name[len(prefix):] for name in names if name.startswith(prefix)}


def top_level(wheel):
    """How mim and mmengine find the folder of a package."""
    content = zipfile.ZipFile(wheel)
    name, = [n for n in content.namelist() if n.endswith('top_level.txt')]
    return content.read(name).decode().split('\n')[0]


def build_wheel(checkout, folder, source='.'):
    run(checkout, '-m', 'pip', 'wheel', '-q', '--no-deps',
        '--no-build-isolation', '-w', str(folder), str(source))
    wheel, = folder.glob('greenmim-*.whl')
    assert mim_files_in(wheel) == expected_mim_files(checkout)
    return wheel


def assert_links(checkout):
    folder = checkout / 'greenmim' / '.mim'
    for name, target in (('configs', 'configs'), ('tools', 'tools'),
                         ('model-index.yml', 'metafile.yml')):
        assert (folder / name).is_symlink()
        assert not os.path.isabs(os.readlink(folder / name))
        assert (folder / name).resolve() == (checkout / target).resolve()


def test_every_install_holds_configs_tools_and_model_index(checkout, tmp_path):
    """An editable one has links; a wheel and one from the source archive,
    which are built where the links are, have copies."""
    # Twice, as links that exist already must not matter.
    for _ in range(2):
        run(checkout, 'setup.py', '-q', 'editable_wheel', '--dist-dir',
            str(tmp_path / 'editable'))
    assert_links(checkout)
    wheel, = (tmp_path / 'editable').glob('greenmim-*.whl')
    installed_path = os.path.join('/lib/site-packages', top_level(wheel))
    assert Path(installed_path) == (checkout / 'greenmim').resolve()

    wheel = build_wheel(checkout, tmp_path / 'wheel')
    assert set(zipfile.ZipFile(wheel).namelist()) >= {
        f'greenmim/{file}'
        for file in files_below(CHECKOUT / 'greenmim')
        if file.endswith('.py') and not file.startswith('.mim')
    }
    assert top_level(wheel) == 'greenmim'

    run(checkout, 'setup.py', '-q', 'sdist', '--dist-dir', str(tmp_path))
    archive, = tmp_path.glob('greenmim-*.tar.gz')
    build_wheel(checkout, tmp_path / 'from_archive', archive)


def write_wheel(folder, name, version):
    """An empty wheel that requires nothing."""
    stem = f'{name.replace("-", "_")}-{version}'
    with zipfile.ZipFile(folder / f'{stem}-py3-none-any.whl', 'w') as wheel:
        info = f'{stem}.dist-info'
        wheel.writestr(
            f'{info}/METADATA', 'Metadata-Version: 2.1\n'
            f'Name: {name}\nVersion: {version}\n')
        wheel.writestr(
            f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: tests\n'
            'Root-Is-Purelib: true\nTag: py3-none-any\n')
        wheel.writestr(f'{info}/RECORD', '')


@pytest.fixture(scope='module')
def index(tmp_path_factory):
    """A folder with our wheel, and an empty one for each requirement."""
    folder = tmp_path_factory.mktemp('index')
    source = tmp_path_factory.mktemp('source')
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md',
                 'LICENSE', 'metafile.yml'):
        shutil.copy(CHECKOUT / name, source)
    for name in ('configs', 'tools'):
        (source / name).mkdir()
    (source / 'greenmim').mkdir()
    for name in ('__init__.py', 'version.py', 'py.typed'):
        shutil.copy(CHECKOUT / 'greenmim' / name, source / 'greenmim')
    run(source, '-m', 'pip', 'wheel', '-q', '--no-deps',
        '--no-build-isolation', '-w', str(folder), '.')
    setup = ConfigParser()
    setup.read(CHECKOUT / 'setup.cfg')
    lines = setup['options']['install_requires'].splitlines()
    for extra in setup['options.extras_require'].values():
        lines += extra.splitlines()
    for line in filter(None, lines):
        bound = re.search(r'[=>]=([\d.]+)', line)
        write_wheel(folder, package_of(line), bound[1] if bound else '0.1')
    return folder


def resolve(folder, installed, *arguments):
    """What pip would install, by its own report.

    Args:
        folder (Path): Where to make the environment.
        installed (Sequence[str]): Packages that it has.
        *arguments (str): Of ``pip install``.
    """
    run(folder, '-m', 'venv', '--without-pip', 'environment')
    python = folder / 'environment' / 'bin' / 'python'
    site = run(
        folder, '-c', 'import sysconfig; '
        f'print(sysconfig.get_path("purelib", vars=dict('
        f'base={str(folder / "environment")!r})))').strip()
    for name in installed:
        write_metadata(Path(site), name, '2.1')
    report = folder / 'report.json'
    # Without the checkout, which counts as an installed greenmim.
    run(folder,
        '-m',
        'pip',
        '--python',
        str(python),
        'install',
        '-q',
        '--dry-run',
        '--report',
        str(report),
        *arguments,
        PYTHONPATH='')
    return {
        one['metadata']['name']
        for one in json.loads(report.read_text())['install']
    }


@pytest.mark.parametrize('family, other', [('openmmlab', 'onedl'),
                                           ('onedl', 'openmmlab')])
def test_no_install_pulls_packages_over_others(tmp_path, index, family, other):
    """Neither family over the other, nor mmcv-lite over mmcv."""
    arguments = ('--no-index', '--find-links', str(index))
    for mmcv in {'mmcv', FAMILIES[family]['mmcv']}:
        installed = {**FAMILIES[family], 'mmcv': mmcv}.values()
        folder = tmp_path / mmcv
        folder.mkdir()
        found = resolve(folder, installed, *arguments, 'greenmim')
        assert 'greenmim' in found and 'torch' in found
        all_families = set(FAMILIES[family].values()) | set(
            FAMILIES[other].values())
        assert not found & {*all_families, 'mmcv'}
    folder = tmp_path / 'empty'
    folder.mkdir()
    found = resolve(folder, (), *arguments, f'greenmim[{family}]')
    assert found >= set(FAMILIES[family].values())
    assert not found & {*FAMILIES[other].values(), 'mmcv'}


@pytest.mark.slow
@pytest.mark.parametrize('extra, other', [('openmmlab', 'onedl'),
                                          ('onedl', 'openmmlab')])
def test_no_dependency_pulls_the_other_family(tmp_path, index, extra, other):
    """Of the packages on the index, with all that they require."""
    if extra == 'onedl' and sys.version_info < (3, 10):
        pytest.skip('OneDL needs Python 3.10')
    wheel, = index.glob('greenmim-*.whl')
    try:
        found = resolve(tmp_path, (), f'{wheel}[{extra}]')
    except subprocess.CalledProcessError as error:
        if 'connection' not in error.stderr.lower():
            raise
        skip_or_fail('no package index is reached')
    assert found >= set(FAMILIES[extra].values())
    assert not found & set(FAMILIES[other].values())


# From images to a detector's backbone, in words of the command and in Python.
WHEEL = """
import greenmim
from greenmim.command import main
from greenmim.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

assert greenmim.__file__.startswith({site!r}), greenmim.__file__
assert main(['features', 'a run', 'my photos', '--out', 'f.csv']) == 0
assert main(['export', 'a run', '--to', 'mmdet', '--out', 'a b.pth']) == 0
options = {{'default_hooks.logger.interval': 1}}
run = greenmim.pretrain(
    'my photos', backbone='swin-micro', steps=2, batch_size=2, out='python',
    set=options)
features = greenmim.features(run, 'my photos').features
assert features.shape == (4, 384)
scope = {{}}
exec(greenmim.export(run, to='mmdet').code, scope)
init_default_scope('mmpretrain')
detector = MODELS.build(scope['backbone'])
detector.init_weights()
image = greenmim.preprocess(run)('my photos/0.png')[None]
detector.eval()
maps = detector(image)
assert len(maps) == 4
assert maps[3].allclose(greenmim.load(run)(image)[0], atol=1e-5)
# The file that the command has exported.
init_cfg = dict(scope['backbone']['init_cfg'], checkpoint='a b.pth')
detector = MODELS.build(dict(scope['backbone'], init_cfg=init_cfg))
detector.init_weights()
for name, tensor in greenmim.load('a run').state_dict().items():
    assert detector.state_dict()[name].equal(tensor), name
assert main(['recipes', '--recipe', 'swin-tiny', '--out', 'base.py']) == 0
with open('mine.py', 'w') as file:
    file.write("_base_ = ['base.py']\\nmodel = dict(mask_ratio=0.5)")
mine = Config.fromfile('mine.py')
assert mine.model.mask_ratio == 0.5 and mine.model.backbone.arch == 'tiny'
"""


def test_from_a_wheel_in_a_folder_with_a_blank(checkout, tmp_path):
    """The command, Python, and mim on the config of the run."""
    pytest.importorskip('mim')
    wheel = build_wheel(checkout, tmp_path / 'wheel')
    folder, site = tmp_path / 'my folder', tmp_path / 'site'
    run(tmp_path, '-m', 'pip', 'install', '-q', '--no-deps', '--target',
        str(site), str(wheel))
    save_images(folder / 'my photos', 4, (150, 140))
    environment = dict(
        cpu_environment(), PYTHONPATH=str(site), PYTHONWARNINGS='ignore')

    def start(*words):
        done = subprocess.run([sys.executable, *words],
                              cwd=folder,
                              env=environment,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT,
                              text=True)
        assert done.returncode == 0, done.stdout[-2000:]

    start(
        str(site / 'bin' / 'greenmim'), 'pretrain', 'my photos', '--backbone',
        'swin-micro', '--steps', '2', '--batch-size', '2', '--out', 'a run',
        '--set', 'default_hooks.logger.interval=1')
    start('-c', WHEEL.format(site=str(site)))
    start('-m', 'mim', 'train', 'greenmim', 'a run/config.py', '--work-dir',
          'the same')
    start('-m', 'mim', 'run', 'greenmim', 'forecast', 'a run/config.py',
          '--data', 'my photos', '--steps', '1', '--warmup', '1', '--only',
          'time', '--cfg-options', 'train_cfg.max_iters=9')
    start('-m', 'mim', 'download', 'greenmim', '--config',
          Path(RECIPE).stem, '--dest', 'cards')
    assert [path.name for path in (folder / 'cards').iterdir()] == [RECIPE]
    runs = [greenmim.read_run(folder / name)
            for name in ('a run', 'python', 'the same')]  # yapf: disable
    assert len(runs[0].losses) == 2
    for other in runs[1:]:
        assert other.losses == runs[0].losses
        assert other.held_out_losses == runs[0].held_out_losses


def test_build_drops_configs_that_are_gone(checkout):
    run(checkout, 'setup.py', '-q', 'build_py')
    (checkout / 'configs' / RECIPE).unlink()
    run(checkout, 'setup.py', '-q', 'build_py')
    built = checkout / 'build' / 'lib' / 'greenmim' / '.mim' / 'configs'
    assert built.is_dir() and not (built / RECIPE).exists()


# In a process of its own, since a test that imports distutils anew would leave
# two classes of distributions. The parent's part installs, and is left out.
DEVELOP = """
import importlib.util
import setuptools
setuptools.setup = lambda **kwargs: None
spec = importlib.util.spec_from_file_location('its_setup', 'setup.py')
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.develop.run = lambda self: None
module.Develop(setuptools.Distribution()).run()
"""


def test_develop_command_makes_links(checkout):
    run(checkout, '-c', DEVELOP)
    assert_links(checkout)


def test_mim_search_prints_the_models():
    pytest.importorskip('mim')
    try:
        version('greenmim')
    except PackageNotFoundError:
        skip_or_fail('greenmim is on the path but not installed')
    models = yaml.safe_load((CHECKOUT / 'metafile.yml').read_text())['Models']
    output = run(CHECKOUT, '-W', 'ignore', '-m', 'mim', 'search', 'greenmim')
    for model in models:
        assert Path(model['Config']).stem in output
    output = run(CHECKOUT, '-W', 'ignore', '-m', 'mim', 'search', 'greenmim',
                 '--model', 'swin', '--field', 'architecture')
    assert 'greenmim_swin-tiny' in output and 'convnext' not in output


SOUND = dict(mmengine='0.10.7', mmpretrain='1.2.0')


def import_greenmim(folder,
                    module='greenmim.library_check',
                    distributions=(),
                    **packages):
    """Import a module where only the given packages are installed.

    Args:
        folder (Path): Where to make them.
        module (str): The module. Defaults to the one that checks libraries.
        distributions (Sequence[str]): Packages of which there is metadata.
        **packages (str): Version of each, ``+ops`` marks compiled operators.
    """
    for name in distributions:
        write_metadata(folder, name)
    for name, text in packages.items():
        package = folder / name
        package.mkdir()
        (package / '__init__.py').touch()
        number, _, ops = text.partition('+')
        (package / 'version.py').write_text(f'__version__ = {number!r}\n')
        if ops:
            (package / '_ext.cpython-311-x86_64-linux-gnu.so').touch()
    # -S leaves out site-packages.
    return subprocess.run([
        sys.executable, '-S', '-c',
        f'import {module}, sys; assert "torch" not in sys.modules'
    ],
                          env=dict(PYTHONPATH=f'{folder}:{CHECKOUT}'),
                          capture_output=True,
                          text=True)


def write_metadata(folder, name, version='1.0'):
    metadata = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    metadata.mkdir()
    (metadata / 'METADATA'
     ).write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')


@pytest.mark.parametrize('mmcv', ['2.0.0', '2.0.1', '2.1.0', '2.3.0rc1'])
def test_import_accepts_mmcv(tmp_path, mmcv):
    result = import_greenmim(tmp_path, mmcv=mmcv, **SOUND)
    assert result.returncode == 0 and result.stderr == ''


@pytest.mark.parametrize('package', ['models', 'datasets', 'engine', 'apis'])
@pytest.mark.parametrize(
    'distributions, packages, told',
    [((), {}, 'mmengine, mmcv, mmpretrain. Run: pip install mmengine '
      '"mmcv-lite>=2.0.1,<2.4" "mmpretrain>=1.2"'),
     (['mmengine'], SOUND, 'mmcv. Run: pip install "mmcv-lite>=2.0.1,<2.4"'),
     (['onedl-mmengine'], dict(mmengine='0.10.12'),
      'mmcv, mmpretrain. Run: pip install onedl-mmcv onedl-mmpretrain')])
def test_import_names_the_line_that_installs_what_is_missing(
        tmp_path, package, distributions, packages, told):
    result = import_greenmim(tmp_path, f'greenmim.{package}', distributions,
                             **packages)
    assert result.returncode == 1
    error = result.stderr.strip().splitlines()[-1]
    assert error == ('ImportError: greenmim needs mmengine, mmpretrain and '
                     'mmcv or mmcv-lite, of OpenMMLab or of OneDL; not '
                     f'installed: {told}')


def test_the_package_itself_needs_no_library(tmp_path):
    """Nor do the command and the doctor."""
    for module in ('greenmim', 'greenmim.command', 'greenmim.doctor'):
        assert import_greenmim(tmp_path, module).returncode == 0
    result = run(
        CHECKOUT, '-c', 'import greenmim.ops, sys; '
        'print({"mmengine", "mmcv", "mmpretrain"} & sys.modules.keys())')
    assert result == 'set()\n'


@pytest.mark.parametrize('family, fix', [
    ('mmengine', 'pip uninstall -y mmcv mmcv-lite && pip install '
     '"mmcv-lite>=2.0.1,<2.4"'),
    ('onedl-mmengine', 'pip uninstall -y onedl-mmcv && pip install onedl-mmcv')
])
@pytest.mark.parametrize('mmcv', ['1.7.2', '2.4.0'])
def test_import_refuses_mmcv_and_names_the_fix(tmp_path, mmcv, family, fix):
    result = import_greenmim(
        tmp_path, distributions=[family], mmcv=mmcv, **SOUND)
    assert result.returncode == 1
    error = result.stderr.strip().splitlines()[-1]
    # Both packages have the same files, so the wrong one goes first.
    assert error == ('ImportError: greenmim needs mmcv or mmcv-lite >= 2.0 '
                     f'and < 2.4, {mmcv} is installed. Run: {fix}')


@pytest.mark.parametrize('packages, told', [
    (dict(mmcv='2.1.0', mmselfsup='1.0.0'), 'pip install mmcv-lite==2.0.1'),
    (dict(mmcv='2.0.1', mmselfsup='1.0.0'), None),
    (dict(mmcv='2.0.1', mmdet='3.3.0'), 'mim install "mmcv>=2.1,<2.2"'),
    (dict(mmcv='2.1.0', mmseg='1.2.2'), 'mim install "mmcv>=2.1,<2.2"'),
    (dict(mmcv='2.1.0+ops', mmdet='3.3.0', mmseg='1.2.2'), None),
])
def test_import_warns_of_a_sibling_that_cannot_work(tmp_path, packages, told):
    result = import_greenmim(tmp_path, **packages, **SOUND)
    assert result.returncode == 0
    if told is None:
        assert result.stderr == ''
    else:
        assert 'UserWarning' in result.stderr and told in result.stderr


@pytest.mark.parametrize('setuptools', ['81', '82'])
def test_import_warns_of_pkg_resources(tmp_path, setuptools):
    """MMEngine 0.10.7 imports it; setuptools 82 no longer has it."""
    utils = tmp_path / 'mmengine' / 'utils'
    result = import_greenmim(tmp_path, 'greenmim', mmcv='2.1.0', **SOUND)
    assert result.returncode == 0
    utils.mkdir()
    (utils / 'package_utils.py').write_text('import pkg_resources\n')
    if setuptools == '81':
        (tmp_path / 'pkg_resources.py').touch()
    result = import_greenmim(tmp_path)
    assert result.returncode == 0
    assert ('Run: pip install "setuptools<82"' in result.stderr) == (
        setuptools == '82')


@pytest.mark.parametrize('apart', [False, True])
def test_import_warns_of_two_families_in_one_folder(tmp_path, apart):
    """Those of an environment below this one do no harm."""
    below = tmp_path / 'below'
    below.mkdir()
    write_metadata(below if apart else tmp_path, 'mmengine')
    if apart:
        (tmp_path / 'below.pth').write_text(f'{below}\n')
    result = import_greenmim(
        tmp_path, distributions=['onedl-mmengine'], mmcv='2.1.0', **SOUND)
    assert result.returncode == 0
    assert ('Run: pip uninstall -y mmengine onedl-mmengine && pip install '
            'onedl-mmengine' in result.stderr) == (not apart)


def test_version_is_said_alike():
    changelog = (CHECKOUT / 'CHANGELOG.md').read_text()
    newest = re.search(r'^## (\S+)', changelog, re.MULTILINE).group(1)
    citation = yaml.safe_load((CHECKOUT / 'CITATION.cff').read_text())
    assert newest == citation['version'] == greenmim.__version__
