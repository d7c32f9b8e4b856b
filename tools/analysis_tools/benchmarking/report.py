# Copyright (c) greenmim authors. All rights reserved.
"""Results on the screen and in JSON files."""
import json
import platform
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import List, Optional

import mmpretrain
import torch

from greenmim.version import __version__


def environment(device: torch.device) -> dict:
    """What a result depends on beside its arguments."""
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
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(':')[1] for line in lines if 'model name' in line]
    return names[0].strip() if names else platform.processor()


def finish(device: torch.device, results: List[dict],
           path: Optional[str]) -> None:
    """Print what the results were measured on, and write the file."""
    report = dict(
        command=shlex.join(['python', *sys.argv]),
        environment=environment(device),
        results=results)
    print('\n' + ', '.join(f'{k} {v}'
                           for k, v in report['environment'].items()))
    if path:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
        print(f'written: {file}')


def show_step(result: dict) -> None:
    """Print the table of one comparison of training steps."""
    options = [
        f'{name} {result[name]}' for name in ('dtype', 'attention')
        if name in result
    ]
    options += [
        name.replace('_', ' ') for name in ('with_cp', 'compile', 'plan_ahead')
        if result[name]
    ]
    height, width = result['image_size']
    print(f'\n{result["config"]}: {height}x{width} px, batch '
          f'{result["batch_size"]}, {", ".join(options)}, '
          f'{result["visible_units"]} of {result["units"]} units visible')
    print(f'{"":24}{"step s":>9}{"(min - max)":>17}{"images/s":>10}'
          f'{"peak MiB":>10}{"ratio":>8}{"of limit":>10}{"plan ms":>9}'
          f'{"fill":>7}')
    for row in result['rows']:
        spread = f'({min(row["all_seconds"]):.3f} - ' \
                 f'{max(row["all_seconds"]):.3f})'
        line = (f'{row["name"]:24}{row["seconds"]:9.3f}{spread:>17}'
                f'{row["images_per_second"]:10.2f}'
                f'{row["peak_memory"] / 2**20:10.0f}')
        line += f'{row["ratio"]:7.2f}x' if 'ratio' in row else ' ' * 8
        if 'share_of_limit' in row:
            line += f'{row["share_of_limit"]:10.1%}'
        elif 'fill_rate' in row:
            line += ' ' * 10
        if 'fill_rate' in row:
            line += (f'{row["planning_seconds"] * 1e3:9.2f}'
                     f'{row["fill_rate"]:7.1%}')
        print(line)
    if 'limit' in result:
        print(f'limit by token count: {result["limit"]:.2f}x against '
              f'{result["reference"]} (decoder and loss: '
              f'{result["decoder_seconds"]:.3f} s)')
    _show_with_optimizer(result)
    for row in result['rows']:
        if 'breakdown' in row:
            shares = sorted(row['breakdown'].items(), key=lambda x: -x[1])
            text = ', '.join(f'{kind} {share:.1%}' for kind, share in shares)
            print(f'time of {row["name"]}: {text}')


def _show_with_optimizer(result: dict) -> None:
    total = {
        row['name']: row['seconds'] + row['optimizer_seconds']
        for row in result['rows'] if 'optimizer_seconds' in row
    }
    for name, seconds in total.items():
        line = f'with fused AdamW: {name:24}{seconds:9.3f} s'
        if 'reference' in result:
            line += f' {total[result["reference"]] / seconds:6.2f}x'
        print(line)
