# Copyright (c) greenmim authors. All rights reserved.
"""Results: where they were measured, their files, and their tables."""
import json
import platform
import re
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import Any, Dict, Sequence

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


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def marked(content: str, mark: str) -> str:
    """The content between two lines that mark it as generated."""
    return f'<!-- {mark}:begin -->\n{content}\n<!-- {mark}:end -->'


def write_marked(file: Path, content: str, mark: str) -> None:
    """Replace what a file has between two lines, see :func:`marked`.

    Raises:
        ValueError: If the file does not have these lines.
    """
    text = file.read_text('utf-8')
    pattern = marked('.*?', mark).replace('\n', '\n?')
    if not re.search(pattern, text, re.S):
        raise ValueError(f'expected the lines <!-- {mark}:begin --> and '
                         f'<!-- {mark}:end --> in {file}')
    block = marked(content, mark)
    file.write_text(
        re.sub(pattern, lambda _: block, text, flags=re.S), 'utf-8')
