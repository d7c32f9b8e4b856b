# Copyright (c) greenmim authors. All rights reserved.
"""Say what an environment lacks to run greenmim.

    python tools/misc/check_env.py mmselfsup test

reads from setup.cfg what greenmim and the named extras require, and imports
the libraries whose versions clash. It prints one line for everything that is
wrong; the exit code is 1 then. With extras, greenmim itself has to be
installed from this checkout, as ``mim train greenmim`` needs.
"""
import argparse
import configparser
import importlib
import importlib.util
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Iterator, Sequence

try:
    from packaging.requirements import Requirement
except ImportError:  # an environment with nothing but pip
    from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def read_requirements(extras: Sequence[str]) -> Iterator[Requirement]:
    """Read what setup.cfg requires.

    Args:
        extras (Sequence[str]): Extras to add to greenmim's own requirements.

    Yields:
        Requirement: One requirement that holds on this Python and system.
    """
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    texts = config['options']['install_requires']
    for extra in extras:
        texts += config['options.extras_require'][extra]
    for line in filter(str.strip, texts.splitlines()):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


def find_missing(extras: Sequence[str]) -> Iterator[str]:
    """Find requirements that are not installed, or not in bounds.

    A pin says what was tried; whether another version works shows at the
    import.

    Args:
        extras (Sequence[str]): Extras to add to greenmim's own requirements.

    Yields:
        str: One requirement and what is wrong with it.
    """
    for requirement in read_requirements(extras):
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield f'{requirement} is not installed'
            continue
        for bound in requirement.specifier:
            if bound.operator != '==' and not bound.contains(found):
                yield f'{requirement} is needed, {found} is installed'
    if extras and not is_installed_from_here():
        yield 'greenmim is not installed from here (pip install -e .)'


def is_installed_from_here() -> bool:
    """Tell whether pip installed greenmim, and whether it is this checkout."""
    try:
        version('greenmim')
    except PackageNotFoundError:
        return False
    spec = importlib.util.find_spec('greenmim')
    return (spec is not None and spec.origin is not None
            and Path(spec.origin).resolve().parents[1] == ROOT)


def find_clash(extras: Sequence[str]) -> Iterator[str]:
    """Find a library that fails at import, as versions that clash do.

    Args:
        extras (Sequence[str]): Extras to add to greenmim's own requirements.

    Yields:
        str: The first import that fails, with its error.
    """
    # greenmim checks mmcv, and mmpretrain is strict about all the others.
    modules = ['greenmim', 'cv2', 'torchvision', 'mmpretrain']
    if 'mmselfsup' in extras:
        modules += ['mmselfsup', 'mim']
    sys.path.insert(0, str(ROOT))
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            yield f'import {module}: {type(error).__name__}: {error}'
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('extras', nargs='*', help='extras of setup.cfg')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    problems = list(find_missing(args.extras)) or list(find_clash(args.extras))
    for problem in problems:
        print(problem)
    return int(bool(problems))


if __name__ == '__main__':
    sys.exit(main())
