# Copyright (c) greenmim authors. All rights reserved.
"""Puts configs, tools and the model index where ``mim`` looks for them.

``mim`` reads ``<package>/.mim/{configs,tools,model-index.yml}``. A wheel
holds copies, an editable install symbolic links in the checkout. Everything
else is in setup.cfg.
"""
import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = 'greenmim'
# What mim calls it: where it lies in the checkout.
MIM_FILES = {
    'configs': 'configs',
    'tools': 'tools',
    'model-index.yml': 'metafile.yml'
}


def make_mim_folder(package: Path, link: bool) -> None:
    """Make ``.mim`` in a package folder, replacing an older one.

    Args:
        package (Path): The package folder, in the checkout or in a build.
        link (bool): Whether to make relative links to the checkout, instead
            of copies.
    """
    folder = package / '.mim'
    # A build folder may hold configs that the checkout no longer has.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, source in MIM_FILES.items():
        if link:
            target = os.path.relpath(ROOT / source, folder)
            (folder / name).symlink_to(target)
        elif (ROOT / source).is_dir():
            shutil.copytree(
                ROOT / source,
                folder / name,
                ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]'))
        else:
            shutil.copy(ROOT / source, folder / name)


class BuildPy(build_py):
    """Every install and every wheel passes here, the editable one too."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            make_mim_folder(ROOT / PACKAGE, link=True)
        else:
            make_mim_folder(Path(self.build_lib) / PACKAGE, link=False)


class Develop(develop):
    """``setup.py develop``, which old versions of pip use for ``-e``."""

    def run(self) -> None:
        make_mim_folder(ROOT / PACKAGE, link=True)
        super().run()


class EditableWheel(editable_wheel):
    """Tells ``mim`` where the package of an editable install lies.

    ``mim`` joins the folder of the metadata, site-packages, with the first
    line of top_level.txt. The package is not there, so that line becomes
    the package's absolute path, which a join leaves as it is.
    """

    def _ensure_dist_info(self) -> None:
        super()._ensure_dist_info()
        top_level = Path(self.dist_info_dir) / 'top_level.txt'
        top_level.write_text(f'{ROOT / PACKAGE}\n{PACKAGE}\n')


setup(
    cmdclass=dict(
        build_py=BuildPy, develop=Develop, editable_wheel=EditableWheel))
