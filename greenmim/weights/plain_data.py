# Copyright (c) greenmim authors. All rights reserved.
"""What a checkpoint may hold beside tensors and Python's plain types.

PyTorch's safe reader refuses every class. Training options and figures are
often saved beside the weights, as classes of NumPy, MMEngine and others that
hold plain data. They are read by the stand-ins of this module, which carry
the names of these classes and run no code of the file.
"""
import argparse
import collections
import pathlib
from typing import Any, List, Tuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

# Booleans, integers, floats, complex numbers and text, but no objects.
KINDS = 'biufcSU'


class DType:
    """The pickled type of a number of NumPy.

    Args:
        code (str): Such as ``'f8'``.
        *others (bool): How it would be aligned and copied.

    Raises:
        ValueError: If it is not of :data:`KINDS`.
    """

    def __init__(self, code: str, *others: Any) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in KINDS:
            raise ValueError(f'expected numbers or text of NumPy, got {code}')

    def __setstate__(self, state: Tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class Array(np.ndarray):
    """A pickled array of plain numbers or text."""

    def __setstate__(self, state: Tuple[Any, ...]) -> None:
        version, shape, kind, fortran, content = state
        if not isinstance(kind, DType):
            raise ValueError('expected an array of numbers or text')
        if isinstance(content, str):
            content = content.encode('latin1')
        super().__setstate__((version, shape, kind.dtype, fortran, content))


def make_array(*args: Any) -> Array:
    """As ``numpy._core.multiarray._reconstruct``, for no other class."""
    return np.ndarray.__new__(Array, (0, ), 'b')


def make_scalar(kind: DType, content: Any) -> Any:
    """As ``numpy._core.multiarray.scalar``; a number of Python."""
    if isinstance(content, str):
        content = content.encode('latin1')
    return np.frombuffer(content, kind.dtype, 1)[0].item()


class History(HistoryBuffer):
    """The pickled log of a figure, with MMEngine's own statistics."""

    def __setstate__(self, state: dict) -> None:
        # A class has one table of statistics, which a file could replace.
        super().__setstate__({
            name: value
            for name, value in state.items() if name != 'statistics_methods'
        })


def read_method(owner: Any, name: str) -> str:
    """As ``getattr``, by which the log names its statistics."""
    return name


def make_path(*parts: Any) -> str:
    """A path as text."""
    return str(pathlib.PurePosixPath(*map(str, parts)))


def allowed_globals() -> List[Any]:
    """For ``torch.serialization.safe_globals``."""
    found: List[Any] = [argparse.Namespace]
    for stand_in, module, name in (
        (DType, 'numpy', 'dtype'),
        (Array, 'numpy', 'ndarray'),
        (make_array, 'numpy.core.multiarray', '_reconstruct'),
        (make_array, 'numpy._core.multiarray', '_reconstruct'),
        (make_scalar, 'numpy.core.multiarray', 'scalar'),
        (make_scalar, 'numpy._core.multiarray', 'scalar'),
        (History, 'mmengine.logging.history_buffer', 'HistoryBuffer'),
        (read_method, 'builtins', 'getattr'),
        (make_path, 'pathlib', 'PosixPath'),
        (make_path, 'pathlib', 'PurePosixPath'),
        (make_path, 'pathlib', 'WindowsPath'),
        (collections.OrderedDict, 'yacs.config', 'CfgNode'),
    ):
        found.append(_named(stand_in, module, name))
    return found


def _named(stand_in: Any, module: str, name: str) -> Any:
    """A stand-in by the name of the class that it stands for."""
    if digit_version(torch.__version__) >= digit_version('2.6'):
        return stand_in, f'{module}.{name}'
    # PyTorch 2.5 knows an allowed class only by its own name.
    if isinstance(stand_in, type):
        fields = dict(__module__=module, __qualname__=name)
        return type(name, (stand_in, ), fields)

    def function(*args: Any) -> Any:
        return stand_in(*args)

    function.__module__, function.__name__ = module, name
    function.__qualname__ = name
    return function
