# Copyright (c) greenmim authors. All rights reserved.
"""What greenmim requires, from setup.cfg or its installed metadata.

It needs nothing but the standard library.
"""
import re
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Dict, List

SETUP = Path(__file__).resolve().parents[1] / 'setup.cfg'


def requirements(*extras: str) -> List[str]:
    """The requirements of greenmim, or instead of some of its extras.

    Args:
        *extras (str): Names of extras.

    Returns:
        list[str]: ``name`` and the bounds of its version; empty if greenmim
        is neither a checkout nor installed.
    """
    known = _all_requirements()
    return [line for extra in extras or [''] for line in known.get(extra, [])]


def requirement(package: str, *extras: str) -> str:
    """One of the :func:`requirements`, quoted for a shell if necessary.

    Args:
        package (str): The name of the package.
        *extras (str): Names of extras.
    """
    for line in requirements(*extras):
        if package_of(line) == package:
            return f'"{line}"' if re.search('[<>]', line) else line
    return package


def package_of(line: str) -> str:
    """The name of the package that a requirement asks for."""
    return re.split(r'[^\w.-]', line)[0]


def is_met(line: str, version: str) -> bool:
    """Whether a version is inside the bounds of a requirement.

    A pin (``==``) is the version that was tried; whether another one works
    shows at the import.
    """
    for operator, bound in re.findall(r'(<=|>=|<|>)\s*([\d.]+)', line):
        found, limit = _numbers(version), _numbers(bound)
        if not {
                '<': found < limit,
                '<=': found <= limit,
                '>': found > limit,
                '>=': found >= limit
        }[operator]:
            return False
    return True


def _numbers(version: str) -> List[int]:
    numbers = re.match(r'[\d.]*', version)[0]  # type: ignore[index]
    return [
        int(number) for number in (numbers + '.0.0.0').split('.') if number
    ][:4]


def _all_requirements() -> Dict[str, List[str]]:
    """The requirements by extra, those without one under ``''``."""
    setup = ConfigParser()
    setup.read(SETUP, 'utf-8')
    if setup.get('metadata', 'name', fallback='') == 'greenmim':
        sections = dict(setup['options.extras_require'])
        sections[''] = setup['options']['install_requires']
        return {
            extra: [line for line in text.splitlines() if line]
            for extra, text in sections.items()
        }
    known: Dict[str, List[str]] = {}
    try:
        lines = requires('greenmim') or []
    except PackageNotFoundError:
        lines = []
    for line in lines:
        line, _, marker = line.partition(';')
        extra = re.search(r'extra == .(\w+)', marker)
        known.setdefault(extra[1] if extra else '', []).append(line.strip())
    return known
