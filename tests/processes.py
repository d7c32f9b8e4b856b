# Copyright (c) greenmim authors. All rights reserved.
"""What tests need that start other processes."""
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Union

import numpy as np

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


def run(line: str, environment: Dict[str, str], folder: Union[str, Path],
        **options: Any) -> str:
    """Run a command line in a folder, and return what it prints."""
    result = subprocess.run(
        shlex.split(line),
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options)
    assert result.returncode == 0, f'{line}\n{result.stdout[-5000:]}'
    return result.stdout


def losses_of(work_dir: Path) -> List[float]:
    """The mean loss over the processes, of every iteration."""
    losses: Dict[int, List[float]] = {}
    for file in sorted(work_dir.glob('losses_*.txt')):
        for iteration, loss in np.loadtxt(file):
            losses.setdefault(int(iteration), []).append(loss)
    assert sorted(losses) == list(range(len(losses)))
    return [np.mean(losses[i]) for i in range(len(losses))]


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
