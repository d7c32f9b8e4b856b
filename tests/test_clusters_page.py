# Copyright (c) greenmim authors. All rights reserved.
"""docs/clusters.md: its commands run, its tables follow from its formulas.

Its lines for Slurm run in tests/test_tools/test_slurm.py, that for FSDP2 in
tests/test_tools/test_fully_sharded.py.
"""
import re
import subprocess

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from greenmim.engine.fully_sharded import _blocks
from tests.conftest import CHECKOUT
from tests.documents import Page
from tests.processes import free_port

PAGE = Page('docs/clusters.md')
MODEL = {}
for block in PAGE.take('python'):
    exec(block, MODEL)
SLOW, FAST = 10e9, 100e9


def rows(heading):
    """The numbers of a table's rows; text and empty cells are left out."""
    _, table = PAGE.text.split(heading)
    for line in re.findall(r'^\|(.*)\|$', table.split('\n\n')[0], re.M)[1:]:
        yield [float(x) for x in re.findall(r'(?<![\w.])[\d.]+(?!\w)', line)]


def equal(found, shown):
    """A shown number is the computed one, to its digits."""
    assert found == pytest.approx(shown, rel=0, abs=0.5), (found, shown)


def test_values_are_those_of_the_table_of_symbols():
    shown = dict(
        re.findall(r'^\| ([PFRar]) \|[^|]*\| ([\d.]+)', PAGE.text, re.M))
    scale = dict(P=1e6, F=1e9, R=1e12, a=1)
    for name, unit in scale.items():
        assert MODEL[name] == float(shown[name]) * unit


def test_exchange_of_gradients():
    found = list(rows('| GPUs | b | B |'))
    assert len(found) == 6
    for gpus, batch, total, s, *exchange in found:
        assert total == gpus * batch
        widths = [FAST] if gpus == 8 else [SLOW, FAST]
        for width, t, share in zip(widths, exchange[::2], exchange[1::2]):
            model = MODEL['step'](gpus, batch, width)
            equal(model[0] * 1e3, s)
            equal(model[1] * 1e3, t)
            equal(100 * model[0] / model[2], share)
    for width, number in (SLOW, 308), (FAST, 31):
        assert round(MODEL['smallest_batch'](width)) == number
    assert 'b* is 308 at 10 GB/s and 31 at 100 GB/s' in PAGE.text


def test_loading_of_images():
    found = list(rows('| GPUs | images/s per GPU |'))
    assert len(found) == 3
    for gpus, images, cores, storage in found:
        model = MODEL['loading'](gpus, 256, FAST)
        equal(model[0], images)
        assert model[1] == pytest.approx(cores, abs=0.05)
        assert model[2] / 1e9 == pytest.approx(storage, rel=0.02)


@pytest.mark.parametrize('name, config', [
    ('Swin-B', 'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k.py'),
    ('Swin-L', 'greenmim_swin-large-w14_8xb256-amp-coslr-800e_in1k.py'),
])
def test_memory(name, config):
    """Parameters are those of the model, bytes those of the formula."""
    model = MODELS.build(Config.fromfile(CHECKOUT / 'configs' / config).model)
    blocks = [
        sum(p.numel() for layer in block.modules()
            if isinstance(layer, torch.nn.Linear) for p in layer.parameters())
        for block in _blocks(model)
    ]
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    counts = total, total - sum(blocks), max(blocks)
    row, = re.findall(rf'^\| {name} \| (.*) \|$', PAGE.text, re.M)
    shown, ddp, *sharded = row.split(' | ')
    assert shown == ', '.join(f'{count / 1e6:.1f}' for count in counts)
    for gpus, size in zip((8, 64, 256), sharded):
        model = [size / 1e9 for size in MODEL['memory'](*counts, gpus)]
        assert model[0] == pytest.approx(float(ddp), abs=0.05)
        assert model[1] == pytest.approx(float(size), rel=0.04)


def test_several_machines(make_config, environment, tmp_path):
    """Two machines with a process each instead of one machine with two."""
    lines = [line for line in PAGE.commands() if line.startswith('NNODES=2')]
    assert len(lines) == 2
    changes = {
        'tools': f'{CHECKOUT}/tools',
        'CONFIG 8': f'{make_config()} 1',
        '10.0.0.1': '127.0.0.1',
        '29500': free_port()
    }
    processes = []
    for line in lines:
        for old, new in changes.items():
            line = line.replace(old, new)
        processes.append(
            subprocess.Popen(['bash', '-c', line],
                             cwd=tmp_path,
                             env=environment,
                             stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT,
                             text=True))
    for process in processes:
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output[-3000:]
    losses = [(tmp_path / 'D' / f'losses_{i}.txt').read_text() for i in (0, 1)]
    assert losses[0] != losses[1]
    assert (tmp_path / 'D' / 'epoch_2.pth').exists()


def test_every_line_of_the_fault_table_names_its_test():
    """The table in docs/reliability.md."""
    text = Page('docs/reliability.md').text
    table = re.findall(r'^\| .* \| (`test_.*) \|$', text, re.M)
    assert len(table) == 15
    for row in table:
        file = ''
        for name in re.findall(r'`(test_\w+(?:\.py)?)`', row):
            if name.endswith('.py'):
                (file, ) = CHECKOUT.glob(f'tests/*/{name}')
            else:
                assert f'\ndef {name}(' in file.read_text('utf-8'), name
