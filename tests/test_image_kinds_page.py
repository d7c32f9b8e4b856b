# Copyright (c) greenmim authors. All rights reserved.
"""docs/image_kinds.md: its configs train, its tables are those of the tests.

``python -m tests.test_image_kinds_page`` writes the tables.
"""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from greenmim.benchmarking.results import marked, table, write_marked
from greenmim.benchmarking.windows import windows_table
from greenmim.datasets.decoding import decode_image
from tests.conftest import CHECKOUT
from tests.documents import Page, lines_of, run_line, short_run
from tests.test_datasets.test_number_types import (CONTAINERS, FREE,
                                                   file_order, random_pixels)
from tests.test_datasets.test_odd_files import FILES

PAGE = Page('docs/image_kinds.md')
CONFIGS = [
    re.fullmatch(r'# (\w+\.py)\n(.*)', block, re.S).groups()
    for block in PAGE.take('python')
]
COMMANDS = [line for block in PAGE.take('bash') for line in lines_of(block)]
SCALES = {1: 'unchanged', 255: 'times 255', 1 / 257: 'divided by 257'}


def outcome(container, dtype):
    """What the decoder does with values of a type, without a range."""
    save, _, numbers = CONTAINERS[container]
    limit = 1 if dtype.startswith('float') else FREE.get(dtype, 255)
    pixels = random_pixels(dtype, numbers[0], 0, limit)
    image = file_order(decode_image(save(pixels), numbers[0]))
    text, = (text for scale, text in SCALES.items()
             if abs(image - pixels.astype(float) * scale).max() <= 1)
    beyond = random_pixels(dtype, numbers[0], 0, limit)
    if dtype in ('bool', 'uint8', 'uint16'):
        return text, ''
    beyond[0, 0, 0] = -1 if dtype.startswith('int') else 300
    with pytest.raises(ValueError, match='black_level and white_level'):
        decode_image(save(beyond), numbers[0])
    return (f'{text} within 0 to {limit if limit == 1 else 255}, otherwise an '
            'error', '`black_level`, `white_level`')


def kinds_block():
    rows = []
    for container, (_, dtypes, numbers) in CONTAINERS.items():
        found = {}
        for dtype in dtypes:
            found.setdefault(outcome(container, dtype), []).append(dtype)
        bands = ', '.join(map(str, numbers))
        for (text, options), names in found.items():
            rows.append([
                f'{container} ({bands} bands)', ', '.join(names), text, options
            ])
    for name, (_, _, options) in FILES.items():
        rows.append([
            name, '', 'as the file states',
            ', '.join(f'`{key}={value!r}`' for key, value in options.items())
        ])
    return table(['kind of file', 'numbers', 'values', 'options'], rows)


def windows_block():
    file, = (CHECKOUT / 'benchmarks').glob('windows_*.json')
    report = json.loads(file.read_text())
    where = report['environment']
    return (f'{windows_table(report["results"])}\n\nMeasured on one core of '
            f'{where["hardware"]}, {where["date"]}, while other programs ran.')


def test_tables_are_those_of_the_tests_and_the_result():
    for package in ('imagecodecs', 'pillow_heif'):
        pytest.importorskip(package)
    assert marked(kinds_block(), 'kinds') in PAGE.text
    assert marked(windows_block(), 'windows') in PAGE.text


def made_scenes(channels):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :160] / 25
    return [
        np.sin(y + phase)[..., None] *
        np.cos(x[..., None] + np.arange(channels))
        for phase in rng.uniform(0, 6, 4)
    ]


def test_every_command(workspace, run_tool, capsys):
    """Statistics propose a range, and every config trains on made data."""
    rasterio = pytest.importorskip('rasterio')
    for name in ('ct', 'thermal', 'satellite'):
        (workspace / 'data' / name).mkdir(parents=True)
    for i, scene in enumerate(made_scenes(1)):
        np.save(f'data/ct/{i}.npy', (900 * scene).astype(np.int16)[..., 0])
        tifffile.imwrite(f'data/thermal/{i}.tif',
                         (29700 + 600 * scene).astype(np.uint16)[..., 0])
    for i, scene in enumerate(made_scenes(13)):
        bands = (.4 + .3 * scene).astype(np.float32)
        bands[:30] = -9999
        with rasterio.open(
                f'data/satellite/{i}.tif',
                'w',
                driver='GTiff',
                width=160,
                height=160,
                count=13,
                dtype='float32') as file:
            file.write(bands.transpose(2, 0, 1))
    for name, text in CONFIGS:
        Path(name).write_text(text)
    assert len(CONFIGS) == 3 and len(COMMANDS) == 6
    for command in COMMANDS:
        capsys.readouterr()
        if 'train.py' in command:
            run_line(run_tool, command, *short_run(2))
        else:
            run_line(run_tool, command)
            printed = capsys.readouterr().out
            assert 'mean=[' in printed and 'warning' not in printed
            if 'satellite' not in command:
                assert 'black_level=' in printed
    runs = {path.parent.name for path in workspace.glob('work_dirs/*/*_2.pth')}
    assert runs == {'ct', 'thermal', 'satellite'}


if __name__ == '__main__':
    write_marked(PAGE.path, kinds_block(), 'kinds')
    write_marked(PAGE.path, windows_block(), 'windows')
