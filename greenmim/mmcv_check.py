# Copyright (c) greenmim authors. All rights reserved.
"""Checks, when it is imported, that MMPretrain accepts the installed mmcv.

The requirement is "mmcv or mmcv-lite", which package metadata cannot express.
"""
import runpy
import warnings
from importlib.util import find_spec
from pathlib import Path

from .requirements import requirement

# What mmcv-lite lacks, greenmim does not need.
warnings.filterwarnings('ignore', 'Fail to import')
warnings.filterwarnings('ignore', '.*torch.jit.*deprecated')


def check_mmcv() -> None:
    """Check the installed mmcv, and warn of siblings that it does not suit.

    The version is read from its file, as importing mmcv would import PyTorch.

    Raises:
        ImportError: mmcv is missing, or MMPretrain refuses its version.
    """
    fix = f'pip install {requirement("mmcv-lite", "mmselfsup")}'
    spec = find_spec('mmcv')
    if spec is None or spec.origin is None:
        raise ImportError(
            'greenmim needs mmcv or mmcv-lite, neither is installed. Run: '
            f'{fix}')
    folder = Path(spec.origin).parent
    version = runpy.run_path(str(folder / 'version.py'))['__version__']
    major_minor = tuple(int(part) for part in version.split('.')[:2])
    # mmpretrain/__init__.py holds the same bounds, in an assertion.
    if not (2, 0) <= major_minor < (2, 4):
        raise ImportError(
            'greenmim needs mmcv or mmcv-lite >= 2.0 and < 2.4, '
            f'{version} is installed. Run: pip uninstall -y mmcv mmcv-lite && '
            f'{fix}')

    # No mmcv suits both of the following, and greenmim itself needs neither.
    if find_spec('mmselfsup') and major_minor >= (2, 1):
        warnings.warn(
            f'MMSelfSup is installed but refuses mmcv {version}. To use it, '
            f'run: pip uninstall -y mmcv && {fix}')
    for name in ('mmdet', 'mmseg'):
        if find_spec(name) and not any(folder.glob('_ext.*')):
            warnings.warn(
                f'{name} is installed but needs the compiled operators that '
                'this mmcv lacks. To use it, run: pip uninstall -y mmcv-lite '
                f'&& mim install {requirement("mmcv", "downstream")}')


check_mmcv()
