# Copyright (c) greenmim authors. All rights reserved.
"""Say what this environment has, what is wrong with it, and what fixes it.

    python -m greenmim

Every library is imported, since versions that clash show at the import. The
exit code is 1 where something that pre-training needs is wrong.
"""
import importlib
import platform
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Callable, List, Optional, Tuple

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
        check (Callable, optional): Maps the module to what was found in it.
            Defaults to None.
    """
    module: str
    packages: Tuple[str, ...]
    fix: str
    needed: bool = True
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
    """Compiled operators, which detection and segmentation need."""
    try:
        importlib.import_module('mmcv._ext')
    except ModuleNotFoundError:
        return 'without compiled operators, as MMDetection needs them', ''
    except ImportError as error:
        return (f'its compiled operators do not load: {error}',
                'pip uninstall -y mmcv && pip install mmcv-lite==2.0.1')
    return 'with compiled operators', ''


TORCH = 'pip install torch torchvision'
LIBRARIES = [
    Library('numpy', ('numpy', ), 'pip install numpy'),
    Library('torch', ('torch', ), TORCH, check=check_torch),
    Library(
        'torchvision', ('torchvision', ),
        f'{TORCH} --force-reinstall --no-deps',
        check=check_torchvision),
    Library(
        'cv2', ('opencv-python', 'opencv-python-headless'),
        'pip uninstall -y opencv-python && '
        'pip install opencv-python-headless'),
    Library('mmengine', ('mmengine', 'onedl-mmengine'),
            'pip install mmengine'),
    Library(
        'mmcv', ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
        'pip install mmcv-lite==2.0.1',
        check=check_mmcv),
    Library('mmpretrain', ('mmpretrain', 'onedl-mmpretrain'),
            'pip install "mmpretrain>=1.2"'),
    Library('safetensors', ('safetensors', ), 'pip install safetensors'),
    Library('skimage', ('scikit-image', ), 'pip install scikit-image'),
    Library('triton', ('triton', ), '', needed=False),
    Library(
        'mim', ('openmim', ),
        'pip install "openmim>=0.3.9" "setuptools<81"',
        needed=False),
    Library(
        'mmselfsup', ('mmselfsup', ),
        'pip install mmselfsup mmcv-lite==2.0.1',
        needed=False),
    Library(
        'mmdet', ('mmdet', ),
        'pip uninstall -y mmcv-lite && pip install mmdet==3.3.0 && '
        'mim install "mmcv>=2.1,<2.2"',
        needed=False),
    Library(
        'mmseg', ('mmsegmentation', ),
        'pip uninstall -y mmcv-lite && pip install mmsegmentation==1.2.2 '
        'ftfy regex && mim install "mmcv>=2.1,<2.2"',
        needed=False),
]


def installed_version(packages: Tuple[str, ...]) -> Optional[str]:
    """Name and version of the first distribution that is installed."""
    for package in packages:
        try:
            return f'{package} {version(package)}'
        except PackageNotFoundError:
            pass
    return None


def examine(library: Library) -> Finding:
    """Import a library; what was found, and the line that fixes it."""
    name = installed_version(library.packages)
    if name is None:
        if not library.needed:
            return f'{library.packages[0]} is not installed (not needed)', ''
        return f'{library.packages[0]} is not installed', library.fix
    try:
        module = importlib.import_module(library.module)
        found, fix = library.check(module) if library.check else ('', '')
    except Exception as error:
        reason = str(error).strip().splitlines() or ['']
        return (f'{name} fails at import: {type(error).__name__}: '
                f'{reason[0]}', library.fix)
    return f'{name}{", " if found else ""}{found}', fix


def main() -> int:
    warnings.simplefilter('ignore')
    print(f'greenmim {__version__}, Python {platform.python_version()}, '
          f'{platform.platform()}')
    problems: List[Tuple[Library, str]] = []
    for library in LIBRARIES:
        found, fix = examine(library)
        print(f'{"[!!]" if fix else "[ok]"} {found}')
        if fix:
            print(f'     fix: {fix}')
            problems.append((library, fix))
    needed = [library.module for library, _ in problems if library.needed]
    if needed:
        print(f'Pre-training does not work here because of '
              f'{", ".join(needed)}. Run the first line that fixes something '
              'and ask again.')
    else:
        print('Pre-training works here.')
    return int(bool(needed))


if __name__ == '__main__':
    sys.exit(main())
