# Copyright (c) greenmim authors. All rights reserved.
"""Masked image modelling that computes only what is visible.

Importing the package imports nothing else: the registries import the classes
when they are first asked for. :mod:`greenmim.ops` needs PyTorch and NumPy
alone; all other packages check which mmcv is installed.
"""
from .version import __version__

__all__ = ['__version__']
