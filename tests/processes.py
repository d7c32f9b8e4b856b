# Copyright (c) greenmim authors. All rights reserved.
"""What tests need that start other processes."""
import os
import socket
import sys
from pathlib import Path
from typing import Dict, List, Union

ROOT = Path(__file__).resolve().parents[1]


def cpu_environment(*folders: Union[str, Path],
                    **variables: str) -> Dict[str, str]:
    """Environment variables of a process without a GPU, on one thread.

    It finds greenmim, the modules in the folders and the programs of this
    Python.
    """
    binaries = Path(sys.executable).parent
    return dict(
        os.environ,
        CUDA_VISIBLE_DEVICES='',
        OMP_NUM_THREADS='1',
        PATH=f'{binaries}{os.pathsep}{os.environ["PATH"]}',
        PYTHONPATH=os.pathsep.join(map(str, (ROOT, *folders))),
        **variables)


def free_port() -> str:
    """Name a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return str(listener.getsockname()[1])


def processes_with(variable: str) -> List[int]:
    """Numbers of the processes that have ``NAME=value`` (Linux)."""
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        try:
            environment = (path / 'environ').read_bytes().split(b'\0')
        except OSError:
            continue
        if variable.encode() in environment:
            found.append(int(path.name))
    return found
