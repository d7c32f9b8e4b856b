# Copyright (c) greenmim authors. All rights reserved.
"""Report what this environment has, what is wrong with it, and what fixes it.

    greenmim doctor [EXTRA ...]

Every library is imported, since versions that clash show at the import. The
exit code is 1 if something is wrong that pre-training, or one of the named
extras of setup.cfg, needs. With an extra greenmim has to be installed, as
``mim train greenmim`` needs. It runs before anything else is installed.
"""
import argparse
import importlib
import platform
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from .libraries import (both_families, missing_pkg_resources, operators_line,
                        refused_mmcv, uninstall_mmcv)
from .requirements import (install_line, installed_family, is_installed,
                           is_met, package_of, requirement, requirements)
from .version import __version__

Finding = Tuple[str, str]  # what was found, and the line that fixes it or ''


@dataclass(frozen=True)
class Library:
    """A library that greenmim uses."""
    module: str  # the name that is imported, '' for none
    packages: Tuple[str, ...]  # distributions that contain it
    fix: str  # the command that installs what goes together
    extra: str = ''  # which needs it; '' stands for pre-training itself
    # Modules that it imports, of which a failing one is to be fixed first.
    after: Tuple[str, ...] = ()
    # Maps the module to what was found in it.
    check: Optional[Callable[[ModuleType], Finding]] = None
    reads: str = ''  # kinds of images, if it is for these alone


def check_torch(torch: ModuleType) -> Finding:
    """Devices, and a CUDA build that finds no driver."""
    if torch.cuda.is_available():
        names = {
            torch.cuda.get_device_name(i)
            for i in range(torch.cuda.device_count())
        }
        return (f'{torch.cuda.device_count()} GPU ({", ".join(names)}), CUDA '
                f'{torch.version.cuda}', '')
    return 'no GPU is visible: trains on the CPU', ''


def check_torchvision(torchvision: ModuleType) -> Finding:
    """Compiled operators that match PyTorch."""
    import torch
    torch.ops.torchvision.nms  # an AttributeError where they do not
    return 'operators match PyTorch', ''


def check_mmengine(mmengine: ModuleType) -> Finding:
    """What it imports, and that no other package holds the same files."""
    found, fix = both_families()
    return (found, fix) if fix else missing_pkg_resources()


def check_mmcv(mmcv: ModuleType) -> Finding:
    """A version that MMPretrain accepts, and the compiled operators that
    detection and segmentation need."""
    found, fix = refused_mmcv()
    if fix:
        return f'but MMPretrain needs {found}', fix
    try:
        importlib.import_module('mmcv._ext')
    except ModuleNotFoundError:
        return ('without the compiled operators that MMDetection and '
                'MMSegmentation need', '')
    except ImportError as error:
        return f'its compiled operators do not load: {error}', MMCV
    return 'with compiled operators', ''


def check_mim(mim: ModuleType) -> Finding:
    """A click that distinguishes options that were not given."""
    click = requirement('click', 'mmselfsup')
    # That of OneDL needs a newer one.
    if is_installed('openmim') and not is_met(click, version('click')):
        return ('but `mim train --launcher slurm` fails with click '
                f'{version("click")}', f'pip install {click}')
    return '', ''


# PyTorch and torchvision of different builds do not go together, so both are
# installed again, with all their dependencies.
TORCH = ('pip uninstall -y torch torchvision && '
         f'pip install {requirement("torch")} torchvision')
MMCV = f'{uninstall_mmcv()} && {install_line("mmcv")}'
ONEDL = installed_family() == 'onedl'
DOWNSTREAM = 'onedl-downstream' if ONEDL else 'downstream'
DETECTION = requirement('onedl-mmdetection' if ONEDL else 'mmdet', DOWNSTREAM)
SEGMENTATION = requirement(
    'onedl-mmsegmentation' if ONEDL else 'mmsegmentation', DOWNSTREAM)
BASE = ('numpy', 'torch', 'cv2')
STACK = (*BASE, 'torchvision', 'mmengine', 'mmcv')


def simple(module: str, package: str = '') -> Library:
    """A library that pip installs by itself."""
    package = package or module
    return Library(module, (package, ), f'pip install {requirement(package)}')


LIBRARIES = [
    # It measures memory, and Windows lacks it.
    Library('resource', ('Python', ),
            'wsl --install  # and install greenmim in WSL'),
    simple('numpy'),
    Library('torch', ('torch', ), TORCH, check=check_torch),
    Library(
        'torchvision', ('torchvision', ),
        TORCH,
        after=('torch', ),
        check=check_torchvision),
    Library(
        'cv2', ('opencv-python', 'opencv-python-headless'),
        'pip uninstall -y opencv-python && '
        'pip install --force-reinstall --no-deps opencv-python-headless',
        after=('numpy', )),
    Library(
        'mmengine', ('mmengine', 'onedl-mmengine'),
        install_line('mmengine'),
        after=BASE,
        check=check_mmengine),
    Library(
        'mmcv', ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
        MMCV,
        after=(*BASE, 'mmengine'),
        check=check_mmcv),
    Library(
        'mmpretrain', ('mmpretrain', 'onedl-mmpretrain'),
        install_line('mmpretrain'),
        after=STACK),
    simple('matplotlib'),
    simple('PIL', 'pillow'),
    simple('rich'),
    simple('safetensors'),
    simple('skimage', 'scikit-image'),
    simple('tifffile'),
    *(Library(
        module, (package, ), f'pip install {package}', extra, reads=reads)
      for module, package, extra, reads in (
          ('imagecodecs', 'imagecodecs', 'tiff', 'TIFF with LZW or ZSTD'),
          ('pillow_heif', 'pillow-heif', 'heif', 'HEIC'),
          ('pydicom', 'pydicom', 'dicom', 'DICOM'),
          ('rasterio', 'rasterio', 'geo', 'windows of GeoTIFF'))),
    Library('triton', ('triton', ), '', 'triton'),
    Library(
        'mim', ('openmim', 'onedl-mim'),
        f'pip install {requirement("openmim", "mmselfsup")} '
        f'{requirement("setuptools", "mmselfsup")}',
        'mmselfsup',
        check=check_mim),
    Library(
        'mmselfsup', ('mmselfsup', ),
        f'{uninstall_mmcv()} && pip install mmselfsup '
        f'{requirement("mmcv-lite", "mmselfsup")}',
        'mmselfsup',
        after=STACK),
    Library(
        'mmdet', ('mmdet', 'onedl-mmdetection'),
        f'pip install {DETECTION} && {operators_line()}',
        DOWNSTREAM,
        after=STACK),
    Library(
        'mmseg', ('mmsegmentation', 'onedl-mmsegmentation'),
        f'pip install {SEGMENTATION} ftfy regex && {operators_line()}',
        DOWNSTREAM,
        after=STACK),
]


def examine(
    library: Library, broken: Sequence[str] = (), extras: Sequence[str] = ()
) -> Finding:
    """Import a library, unless it needs a broken one."""
    name = installed(library.packages)
    if not name:
        missing = f'{library.packages[0]} is not installed'
        if library.extra not in ('', *extras):
            reason = 'not needed'
            if library.reads:
                reason = (f'needed for {library.reads} alone: pip install '
                          f'"greenmim[{library.extra}]"')
            return f'{missing} ({reason})', ''
        return missing, library.fix
    for line in requirements('', installed_family(), library.extra, *extras):
        if package_of(line) in library.packages and not is_met(
                line,
                name.split()[1]):
            return f'{name} is installed, but {line} is needed', library.fix
    if not library.module:
        return name, ''
    blamed = [module for module in library.after if module in broken]
    if blamed:
        return f'{name} was not tried, since it needs {blamed[0]}', ''
    try:
        module = importlib.import_module(library.module)
        found, fix = library.check(module) if library.check else ('', '')
    except Exception as error:
        lines = str(error).strip().splitlines() or ['']
        return (f'{name} fails at import: {type(error).__name__}: '
                f'{lines[0]}', library.fix)
    return f'{name}{", " if found else ""}{found}', fix


def installed(packages: Sequence[str]) -> str:
    """Name and version of the first distribution that is installed."""
    for package in packages:
        if package == 'Python':
            return f'Python {platform.python_version()}'
        try:
            return f'{package} {version(package)}'
        except PackageNotFoundError:
            pass
    return ''


def others(extras: Sequence[str]) -> List[Library]:
    """What extras require that nothing here imports, and greenmim itself."""
    imported = {name for one in LIBRARIES for name in one.packages}
    fixes: Dict[str, str] = {}
    for line in requirements(*extras):
        if package_of(line) not in imported:
            fix = fixes.setdefault(package_of(line), 'pip install')
            fixes[package_of(line)] = f'{fix} "{line}"'
    fixes['greenmim'] = 'pip install -e .'
    return [Library('', (name, ), fix) for name, fix in fixes.items()]


def other_environment() -> Optional[Path]:
    """The `.venv` of this checkout, if it is complete and not in use."""
    venv = Path(__file__).resolve().parents[1] / '.venv'
    if Path(sys.prefix).resolve() == venv:
        return None
    # setup_env.sh writes this when all is installed.
    return venv if (venv / 'runtime.stamp').is_file() else None


def main(argv: Optional[Sequence[str]] = None,
         prog: str = 'greenmim doctor') -> int:
    """Print the report; return 1 if something that is needed is wrong."""
    parser = argparse.ArgumentParser(
        prog, description=(__doc__ or '').split('\n')[0])
    parser.add_argument(
        'extras',
        nargs='*',
        help='extras of setup.cfg, whose requirements are needed, too')
    extras = parser.parse_args(argv).extras
    for extra in extras:
        if not requirements(extra):
            parser.error(f'expected extras of setup.cfg, got {extra!r}')
    warnings.simplefilter('ignore')
    print(f'greenmim {__version__}, {platform.platform()}')
    needed, broken = [], []  # type: List[str], List[str]
    for library in [*LIBRARIES, *(others(extras) if extras else [])]:
        found, fix = examine(library, broken, extras)
        mark = '[!!]' if fix else '[--]' if ' not ' in found else '[ok]'
        print(f'{mark} {found}')
        if fix:
            print(f'     fix: {fix}')
            name = library.module or library.packages[0]
            broken.append(name)
            if library.extra in ('', *extras):
                needed.append(name)
    if needed:
        venv = other_environment()
        print(f'Pre-training does not work here because of '
              f'{", ".join(needed)}. ' +
              (f'{venv} is a complete environment: run "source '
               f'{venv}/bin/activate"' if venv else
               'Run the first line that fixes something') + ' and ask again.')
    else:
        print('Pre-training works here.')
    return int(bool(needed))
