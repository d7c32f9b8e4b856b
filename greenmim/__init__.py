# Copyright (c) greenmim authors. All rights reserved.
"""Masked image modelling that computes only what is visible.

Importing the package imports nothing else: the registries import the classes
when they are first asked for, and ``greenmim.pretrain`` and its siblings are
imported when they are used. :mod:`greenmim.ops` needs PyTorch and NumPy
alone; all other packages check which mmcv is installed.
"""
from typing import TYPE_CHECKING, Any, List

from .version import __version__

if TYPE_CHECKING:
    from .apis import (export, features, finetune, load, preprocess, pretrain,
                       read_run, recipes)

__all__ = [
    '__version__', 'export', 'features', 'finetune', 'load', 'preprocess',
    'pretrain', 'read_run', 'recipes'
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import apis
        return getattr(apis, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
