# Copyright (c) greenmim authors. All rights reserved.
"""The libraries that greenmim needs and does not require.

MMEngine, MMPretrain and mmcv come from OpenMMLab or from OneDL, and mmcv also
as mmcv-lite. The packages hold the same files, and the metadata of a package
cannot express "or". Nothing here imports them, as that would import PyTorch.

A problem is what was found and the command that fixes it, both empty if there
is none.
"""
import runpy
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Optional, Tuple

from .requirements import FAMILIES, install_line, installed_family, requirement

Problem = Tuple[str, str]
NONE = ('', '')


def check_libraries() -> None:
    """Check what is installed, and warn of what does not go together.

    Raises:
        ImportError: A library is missing, or MMPretrain refuses mmcv.
    """
    for refuse in (missing_library, refused_mmcv):
        found, fix = refuse()
        if fix:
            raise ImportError(f'greenmim needs {found}. Run: {fix}')
    for doubt in (missing_pkg_resources, both_families, refusing_mmselfsup,
                  missing_operators):
        found, fix = doubt()
        if fix:
            warnings.warn(f'{found}. Run: {fix}')


def folder_of(module: str) -> Optional[Path]:
    """The folder of a module; None if it is not installed."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def missing_library() -> Problem:
    """Any of the three that is not installed."""
    missing = [
        module for module in FAMILIES['openmmlab'] if not folder_of(module)
    ]
    if not missing:
        return NONE
    return ('mmengine, mmpretrain and mmcv or mmcv-lite, of OpenMMLab or of '
            f'OneDL; not installed: {", ".join(missing)}',
            install_line(*missing))


def mmcv_version() -> str:
    """The version of mmcv, from its file."""
    folder = folder_of('mmcv')
    assert folder is not None
    return runpy.run_path(str(folder / 'version.py'))['__version__']


def major_minor(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in version.split('.')[:2])


def refused_mmcv() -> Problem:
    """A version of mmcv that MMPretrain refuses."""
    version = mmcv_version()
    # mmpretrain/__init__.py holds the same bounds, in an assertion.
    if (2, 0) <= major_minor(version) < (2, 4):
        return NONE
    return (f'mmcv or mmcv-lite >= 2.0 and < 2.4, {version} is installed',
            f'{uninstall_mmcv()} && {install_line("mmcv")}')


def uninstall_mmcv() -> str:
    """Both packages of OpenMMLab, since they hold the same files."""
    onedl = installed_family() == 'onedl'
    return f'pip uninstall -y {"onedl-mmcv" if onedl else "mmcv mmcv-lite"}'


def operators_line() -> str:
    """The command that installs mmcv with its compiled operators."""
    install = ('pip install --no-build-isolation onedl-mmcv'
               if installed_family() == 'onedl' else
               f'mim install {requirement("mmcv", "downstream")}')
    return f'{uninstall_mmcv()} && {install}'


def refusing_mmselfsup() -> Problem:
    """An MMSelfSup that refuses mmcv, which greenmim does not need."""
    version = mmcv_version()
    if not find_spec('mmselfsup') or major_minor(version) < (2, 1):
        return NONE
    return (
        f'MMSelfSup is installed but refuses mmcv {version}, and cannot be '
        'used', f'{uninstall_mmcv()} && pip install '
        f'{requirement("mmcv-lite", "mmselfsup")}')


def missing_operators() -> Problem:
    """An MMDetection or MMSegmentation without the operators of mmcv."""
    folder = folder_of('mmcv')
    assert folder is not None
    names = [name for name in ('mmdet', 'mmseg') if find_spec(name)]
    if not names or any(folder.glob('_ext.*')):
        return NONE
    return (f'{" and ".join(names)} cannot be used without the compiled '
            'operators that this mmcv lacks', operators_line())


def missing_pkg_resources() -> Problem:
    """An MMEngine that imports a module which setuptools no longer has."""
    folder = folder_of('mmengine')
    file = folder / 'utils' / 'package_utils.py' if folder else None
    if (file is None or not file.is_file()
            or 'import pkg_resources' not in file.read_text('utf-8')
            or find_spec('pkg_resources')):
        return NONE
    return ('This MMEngine imports pkg_resources, which setuptools 82 no '
            'longer has; configs that inherit from an installed package fail',
            f'pip install {requirement("setuptools", "openmmlab")}')


def both_families() -> Problem:
    """Packages of both families in the same folder."""
    both = []
    for module, package in FAMILIES['openmmlab'].items():
        try:
            places = {
                str(distribution(name).locate_file(module))
                for name in (package, FAMILIES['onedl'][module])
            }
        except PackageNotFoundError:
            continue
        if len(places) == 1:
            both.append(module)
    if not both:
        return NONE
    packages = [family[name] for name in both for family in FAMILIES.values()]
    return (f'{", ".join(packages)} are installed, of which two at a time '
            'hold the same files; this keeps those of OneDL',
            f'pip uninstall -y {" ".join(packages)} && {install_line(*both)}')
