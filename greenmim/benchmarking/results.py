# Copyright (c) greenmim authors. All rights reserved.
"""Results: where they were measured, and the JSON files that hold them."""
import json
import platform
import re
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import Any, Dict

import mmpretrain
import torch

from greenmim.engine.checkpoints import AtomicLocalBackend
from greenmim.version import __version__


def environment(device: torch.device) -> Dict[str, str]:
    """The hardware, versions and date of a result."""
    if device.type == 'cuda':
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f'{_cpu_name()}, {torch.get_num_threads()} threads'
    return dict(
        device=device.type,
        hardware=hardware,
        date=date.today().isoformat(),
        python=platform.python_version(),
        torch=torch.__version__,
        mmpretrain=mmpretrain.__version__,
        greenmim=__version__)


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*: (.*)$',
                       info.read_text('utf-8') if info.exists() else '', re.M)
    return names[0] if names else platform.processor() or platform.machine()


def origin(environment: Dict[str, str]) -> str:
    """What :func:`environment` returned, in a sentence."""
    return ('{hardware}, PyTorch {torch}, MMPretrain {mmpretrain}, '
            'greenmim {greenmim}, {date}'.format(**environment))


def command() -> str:
    """The command that runs this process."""
    return shlex.join(['python', *sys.argv])


def write_json(content: Any, file: Path) -> None:
    """Write a file completely or not at all."""
    text = json.dumps(content, indent=1) + '\n'
    AtomicLocalBackend().put(text.encode(), file)


def finish(device: torch.device, results: list, path: str = '') -> None:
    """Print what the results were measured on, and write the file, if any."""
    report: Dict[str, Any] = dict(
        command=command(), environment=environment(device), results=results)
    print('\n' + ', '.join(f'{k} {v}'
                           for k, v in report['environment'].items()))
    if path:
        write_json(report, Path(path))
        print(f'written: {path}')
