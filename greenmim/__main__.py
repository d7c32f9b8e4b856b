# Copyright (c) greenmim authors. All rights reserved.
"""Say what this environment has, what is wrong with it, and what fixes it.

    python -m greenmim

Every library is imported, since versions that clash show at the import. The
exit code is 1 where something that pre-training needs is wrong.
"""
import importlib
import platform
import re
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Callable, Dict, Optional, Tuple

from .version import __version__

Finding = Tuple[str, str]  # what was found, and the line that fixes it or ''


@dataclass(frozen=True)
class Library:
    """A library that greenmim uses.

    Args:
        module (str): The name that is imported.
        packages (tuple[str, ...]): Distributions that bring it.
        fix (str): The command that installs what goes together.
        needed (bool): Whether pre-training needs it. Defaults to True.
        minimum (tuple[int, int]): Major and minor version that is needed at
            least. Defaults to ``(0, 0)``.
        after (tuple[str, ...]): Modules that it imports itself. Where one of
            them fails, that one is to be fixed first. Defaults to ``()``.
        check (Callable, optional): Maps the module to what was found in it.
            Defaults to None.
    """
    module: str
    packages: Tuple[str, ...]
    fix: str
    needed: bool = True
    minimum: Tuple[int, int] = (0, 0)
    after: Tuple[str, ...] = ()
    check: Optional[Callable[[ModuleType], Finding]] = None


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


def check_mmcv(mmcv: ModuleType) -> Finding:
    """A version that MMPretrain accepts, and the compiled operators that
    detection and segmentation need."""
    importlib.import_module('greenmim.mmcv_check')
    try:
        importlib.import_module('mmcv._ext')
    except ModuleNotFoundError:
        return ('without the compiled operators that MMDetection and '
                'MMSegmentation need', '')
    except ImportError as error:
        return f'its compiled operators do not load: {error}', MMCV
    return 'with compiled operators', ''


def check_mim(mim: ModuleType) -> Finding:
    """A click that tells options that were not given."""
    if major_minor(version('click')) >= (8, 3):
        return ('but `mim train --launcher slurm` fails with click '
                f'{version("click")}', 'pip install "click<8.3"')
    return '', ''


# PyTorch and torchvision of different builds do not go together, so both are
# taken anew, with all that they bring.
TORCH = ('pip uninstall -y torch torchvision && '
         'pip install "torch>=2.5" torchvision')
# mmcv and mmcv-lite are two packages with the same files.
MMCV = 'pip uninstall -y mmcv mmcv-lite && pip install mmcv-lite==2.0.1'
BASE = ('numpy', 'torch', 'cv2')
STACK = (*BASE, 'torchvision', 'mmengine', 'mmcv')
LIBRARIES = [
    Library('numpy', ('numpy', ), 'pip install numpy'),
    Library('torch', ('torch', ), TORCH, minimum=(2, 5), check=check_torch),
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
        'pip install mmengine',
        after=BASE),
    Library(
        'mmcv', ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
        MMCV,
        after=(*BASE, 'mmengine'),
        check=check_mmcv),
    Library(
        'mmpretrain', ('mmpretrain', 'onedl-mmpretrain'),
        'pip install "mmpretrain>=1.2"',
        minimum=(1, 2),
        after=STACK),
    Library('matplotlib', ('matplotlib', ), 'pip install matplotlib'),
    Library(
        'PIL', ('pillow', ), 'pip install "pillow>=10.1"', minimum=(10, 1)),
    Library('rich', ('rich', ), 'pip install rich'),
    Library('safetensors', ('safetensors', ), 'pip install safetensors'),
    Library('skimage', ('scikit-image', ), 'pip install scikit-image'),
    Library('tifffile', ('tifffile', ), 'pip install tifffile'),
    Library('triton', ('triton', ), '', needed=False),
    Library(
        'mim', ('openmim', ),
        'pip install "openmim>=0.3.9" "setuptools<81"',
        needed=False,
        check=check_mim),
    Library(
        'mmselfsup', ('mmselfsup', ),
        f'{MMCV} mmselfsup',
        needed=False,
        minimum=(1, 0),
        after=STACK),
    Library(
        'mmdet', ('mmdet', ),
        'pip uninstall -y mmcv-lite && pip install mmdet==3.3.0 && '
        'mim install "mmcv>=2.1,<2.2"',
        needed=False,
        after=STACK),
    Library(
        'mmseg', ('mmsegmentation', ),
        'pip uninstall -y mmcv-lite && pip install mmsegmentation==1.2.2 '
        'ftfy regex && mim install "mmcv>=2.1,<2.2"',
        needed=False,
        after=STACK),
]


def major_minor(text: str) -> Tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r'\d+', text)[:2])


def installed(packages: Tuple[str, ...]) -> Optional[Tuple[str, str]]:
    """Name and version of the first distribution that is installed."""
    for package in packages:
        try:
            return package, version(package)
        except PackageNotFoundError:
            pass
    return None


def examine(library: Library, broken: Tuple[str, ...] = ()) -> Finding:
    """Import a library.

    Args:
        library (Library): The library.
        broken (tuple[str, ...]): Modules that were found not to work.

    Returns:
        tuple[str, str]: What was found, and the line that fixes it.
    """
    distribution = installed(library.packages)
    if distribution is None:
        if not library.needed:
            return f'{library.packages[0]} is not installed (not needed)', ''
        return f'{library.packages[0]} is not installed', library.fix
    name = ' '.join(distribution)
    if major_minor(distribution[1]) < library.minimum:
        least = '.'.join(map(str, library.minimum))
        return f'{name} is older than {least}', library.fix
    blamed = [module for module in library.after if module in broken]
    if blamed:
        return f'{name} was not tried, since it needs {blamed[0]}', ''
    try:
        module = importlib.import_module(library.module)
        found, fix = library.check(module) if library.check else ('', '')
    except Exception as error:
        reason = str(error).strip().splitlines() or ['']
        return (f'{name} fails at import: {type(error).__name__}: '
                f'{reason[0]}', library.fix)
    return f'{name}{", " if found else ""}{found}', fix


def other_environment() -> Optional[Path]:
    """The `.venv` of this checkout, if it is complete and not in use."""
    venv = Path(__file__).resolve().parents[1] / '.venv'
    if Path(sys.prefix).resolve() == venv:
        return None
    # setup_env.sh writes this when all is installed.
    return venv if (venv / 'runtime.stamp').is_file() else None


def main() -> int:
    warnings.simplefilter('ignore')
    print(f'greenmim {__version__}, Python {platform.python_version()}, '
          f'{platform.platform()}')
    problems: Dict[str, Library] = {}
    for library in LIBRARIES:
        found, fix = examine(library, tuple(problems))
        mark = '[!!]' if fix else '[--]' if ' not ' in found else '[ok]'
        print(f'{mark} {found}')
        if fix:
            print(f'     fix: {fix}')
            problems[library.module] = library
    needed = [name for name, library in problems.items() if library.needed]
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


if __name__ == '__main__':
    sys.exit(main())
