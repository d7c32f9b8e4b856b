# Copyright (c) greenmim authors. All rights reserved.
"""What greenmim requires, by setup.cfg or the metadata of an installation.

It needs nothing but the standard library.
"""
import operator
import re
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Dict, List

SETUP = Path(__file__).resolve().parents[1] / 'setup.cfg'
OPERATORS = {
    '<': operator.lt,
    '<=': operator.le,
    '>': operator.gt,
    '>=': operator.ge
}

# The two families of packages that hold the same modules, each an extra of
# setup.cfg: which package of it holds what greenmim imports.
FAMILIES = {
    'openmmlab': {
        'mmengine': 'mmengine',
        'mmcv': 'mmcv-lite',
        'mmpretrain': 'mmpretrain'
    },
    'onedl': {
        'mmengine': 'onedl-mmengine',
        'mmcv': 'onedl-mmcv',
        'mmpretrain': 'onedl-mmpretrain'
    }
}


def requirements(*extras: str) -> List[str]:
    """Names and version bounds of what is required.

    Args:
        *extras (str): Extras of setup.cfg; ``''`` stands for greenmim itself.

    Returns:
        list[str]: Empty if greenmim is neither a checkout nor installed.
    """
    setup = ConfigParser()
    known: Dict[str, List[str]] = {}
    setup.read(SETUP, 'utf-8')
    if setup.get('metadata', 'name', fallback='') == 'greenmim':
        known = {
            extra: text.split('\n')
            for extra, text in setup['options.extras_require'].items()
        }
        known[''] = setup['options']['install_requires'].split('\n')
    else:
        try:
            for line in requires('greenmim') or []:
                line, _, marker = line.partition(';')
                extra = re.search(r'extra == .([\w-]+)', marker)
                known.setdefault(extra[1] if extra else '', []).append(line)
        except PackageNotFoundError:
            pass
    return [line for extra in extras for line in known.get(extra, []) if line]


def requirement(package: str, extra: str = '') -> str:
    """A package and its version bounds, quoted for a shell if necessary."""
    for line in requirements(extra):
        if package_of(line) == package:
            return f'"{line}"' if re.search('[<>]', line) else line
    return package


def package_of(line: str) -> str:
    """The name of the package of a requirement."""
    return re.split(r'[^\w.-]', line)[0]


def is_installed(package: str) -> bool:
    """Whether a distribution of this name is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def installed_family() -> str:
    """``onedl`` if a package of that family is installed, else ``openmmlab``.
    """
    onedl = any(map(is_installed, FAMILIES['onedl'].values()))
    return 'onedl' if onedl else 'openmmlab'


def install_line(*modules: str) -> str:
    """The command that installs modules of the family that is in use."""
    family = installed_family()
    packages = [
        requirement(FAMILIES[family][module], family) for module in modules
    ]
    return f'pip install {" ".join(packages)}'


def is_met(line: str, version: str) -> bool:
    """Whether a version is inside the bounds of a requirement.

    A pin (``==``) is the version that was tried; whether another one works
    shows at the import.
    """
    return all(OPERATORS[sign](_numbers(version), _numbers(bound))
               for sign, bound in re.findall(r'(<=|>=|<|>)([^,]+)', line))


def _numbers(version: str) -> List[int]:
    release = re.split(r'[^\d.]', version.strip())[0]
    return [int(number or 0) for number in f'{release}.0.0.0'.split('.')][:4]
