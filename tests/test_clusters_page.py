# Copyright (c) greenmim authors. All rights reserved.
"""docs/clusters.md: its commands run, its tables follow from its formulas.

The lines of Slurm run in tests/test_tools/test_slurm.py, that of FSDP2 in
tests/test_tools/test_fully_sharded.py.
"""
import os
import re
import shlex
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from greenmim.engine.fully_sharded import _blocks
from tests.conftest import CHECKOUT

PAGE = CHECKOUT / 'docs' / 'clusters.md'
TEXT = PAGE.read_text('utf-8')
COMMANDS = [
    line for block in re.findall(r'^```bash\n(.*?)^```', TEXT, re.M | re.S)
    for line in block.splitlines()
]
LAUNCH = CHECKOUT / 'tests' / 'data' / 'launch'


def value_of(symbol):
    """The number in the table of symbols."""
    text = re.search(rf'^\| {symbol} \|[^|]*\|([^|]*)\|', TEXT, re.M).group(1)
    return float(re.findall(r'[\d.]+', text)[0])


P = value_of('P') * 1e6
G = 4 * P
F = value_of('F') * 1e9
R = value_of('R') * 1e12
SLOW, FAST = 10e9, 100e9
A, RATE, FILE = value_of('a'), value_of('r'), value_of('d') * 1e3
SIZES = (8, 64, 256)


def step(gpus, batch, width):
    """Seconds of computing, of the exchange and of the whole step."""
    s = batch * F / R
    t = 2 * (gpus - 1) / gpus * G / width
    return s, t, s + max(0, t - A * s)


def step_rows():
    for gpus, batch in [(n, 256) for n in SIZES] + [(n, 4096 // n)
                                                    for n in SIZES]:
        row = [gpus, batch, gpus * batch]
        s, _, _ = step(gpus, batch, FAST)
        row.append(f'{s * 1e3:.0f}')
        for width in SLOW, FAST:
            _, t, whole = step(gpus, batch, width)
            one_machine = gpus == 8 and width == SLOW
            row += ['', ''] if one_machine else [
                f'{t * 1e3:.0f}', f'{s / whole:.0%}'.replace('%', ' %')
            ]
        yield row


def data_rows():
    for gpus in SIZES:
        images = 256 / step(gpus, 256, FAST)[2]
        yield [
            gpus, f'{images:.0f}', f'{images / RATE:.1f}',
            f'{gpus * images * FILE / 1e9:.2g} GB/s'
        ]


def rate_rows():
    for batch in 2048, 4096, 16384, 65536:
        known = {2048: 'GreenMIM, SimMIM', 4096: 'MAE'}.get(batch, 'none')
        yield [
            batch, f'{1.5e-4 * batch / 256:.2g}',
            f'{1.2e-3 * (batch / 2048)**0.5:.2g}', known
        ]


def memory_rows():
    for name, counts in re.findall(
            r'^\| (Swin\S*) \| ([\d.]+, [\d.]+, [\d.]+)', TEXT, re.M):
        p, rest, block = (float(word) * 1e6 for word in counts.split(', '))
        sharded = [
            f'{(16 * p / gpus + 8 * (rest + block)) / 1e9:.2g}'
            for gpus in SIZES
        ]
        yield [name, counts, f'{20 * p / 1e9:.1f}', *sharded]


@pytest.mark.parametrize('rows',
                         [step_rows, data_rows, rate_rows, memory_rows])
def test_table(rows):
    lines = [f'| {" | ".join(map(str, row))} |' for row in rows()]
    lines = [
        line.replace('|  |', '| |').replace('|  |', '| |') for line in lines
    ]
    assert len(lines) > 2
    assert '\n'.join(lines) in TEXT


def test_smallest_batch():
    for width, number in (SLOW, 308), (FAST, 31):
        assert round(2 * G * R / (A * F * width)) == number
    assert 'b* is 308 at 10 GB/s and 31 at 100 GB/s' in TEXT


def test_steps_of_a_run():
    """Epochs are rounded up to whole batches."""
    for batch, steps in (2048, '500 800'), (65536, '16 000'):
        assert f'{800 * -(-1281167 // batch):,}'.replace(',', ' ') == steps
        assert steps in TEXT


@pytest.mark.parametrize('name, config', [
    ('Swin-B', 'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k.py'),
    ('Swin-L', 'greenmim_swin-large-w14_8xb256-amp-coslr-800e_in1k.py'),
])
def test_parameters(name, config):
    cfg = Config.fromfile(CHECKOUT / 'configs' / config)
    model = MODELS.build(cfg.model)
    blocks = [
        sum(p.numel() for layer in block.modules()
            if isinstance(layer, torch.nn.Linear) for p in layer.parameters())
        for block in _blocks(model)
    ]
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    counts = total, total - sum(blocks), max(blocks)
    text = ', '.join(f'{count / 1e6:.1f}' for count in counts)
    assert f'| {name} | {text} |' in TEXT


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A checkout with images, and the micro config as CONFIG."""
    (tmp_path / 'tools').symlink_to(CHECKOUT / 'tools')
    folder = tmp_path / 'data' / 'images'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype='uint8')
        Image.fromarray(pixels).save(folder / f'{i}.png')
    monkeypatch.syspath_prepend(LAUNCH)
    cfg = Config.fromfile(LAUNCH / 'micro_config.py')
    cfg.train_dataloader.dataset.data_root = 'data/images'
    cfg.experiment_name = uuid.uuid4().hex
    cfg.dump(tmp_path / 'CONFIG.py')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(line, port):
    """Start a line of the page, on two processes instead of eight."""
    line = line.replace('CONFIG', 'CONFIG.py').replace('10.0.0.1', '127.0.0.1')
    line = line.replace('29500', port).replace('CONFIG.py 8', 'CONFIG.py 1')
    return subprocess.Popen(
        ['bash', '-c', line],
        env=dict(
            os.environ,
            CUDA_VISIBLE_DEVICES='',
            OMP_NUM_THREADS='1',
            PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            PYTHONPATH=f'{CHECKOUT}{os.pathsep}{LAUNCH}'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True)


def test_several_machines(workspace):
    """Two of them with a process each, in the place of one machine."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        port = str(listener.getsockname()[1])
    lines = [line for line in COMMANDS if line.startswith('NNODES=2')]
    assert len(lines) == 2
    processes = [start(line, port) for line in lines]
    for process in processes:
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output[-3000:]
    losses = [(workspace / 'D' / f'losses_{i}.txt').read_text()
              for i in (0, 1)]
    assert losses[0] != losses[1]
    assert (workspace / 'D' / 'epoch_2.pth').exists()


def test_decoding_speed(workspace):
    (line, ) = (line for line in COMMANDS if 'channel_statistics' in line)
    process = start(line, '')
    output = process.communicate(timeout=60)[0]
    assert re.search(r'8 of 8 images, decoded at \d+ images/s', output)


def test_other_commands_are_those_that_other_tests_run():
    """On one machine: test_launchers.py, with the same options."""
    rest = [
        shlex.split(line) for line in COMMANDS
        if not re.match(r'NNODES|python tools/misc', line)
    ]
    assert [words[-2:] for words in rest
            if '--cfg-options' not in words] == [['--work-dir', 'D']] * 6
    assert [' '.join(words).split(' CONFIG')[0] for words in rest] == [
        'python tools/train.py', 'bash tools/dist_train.sh',
        'mim train greenmim',
        'GPUS=16 GPUS_PER_NODE=8 bash tools/slurm_train.sh PARTITION JOB',
        'mim train greenmim',
        'sbatch --partition=PARTITION --nodes=2 tools/slurm_job.sh',
        'bash tools/dist_train.sh'
    ]
    (sharded, ) = (words for words in rest if '--cfg-options' in words)
    assert sharded[-1] == 'model_wrapper_cfg.type=greenmim.FullyShardedModel'


def test_links_resolve():
    anchors = {
        re.sub(r'\W+', '-', title.lower())
        for title in re.findall(r'^## (.+)', TEXT, re.M)
    }
    for target in re.findall(r'\]\(([^)]+)\)', TEXT):
        if target.startswith('#'):
            assert target[1:] in anchors
        else:
            assert (PAGE.parent / target).exists()


def test_named_tests_exist():
    names = re.findall(r'`(tests/[\w/]+\.py)`', TEXT)
    assert names and all((CHECKOUT / name).is_file() for name in names)


def test_every_line_of_the_fault_table_names_its_test():
    text = (CHECKOUT / 'docs' / 'reliability.md').read_text('utf-8')
    rows = re.findall(r'^\| .* \| (`test_.*) \|$', text, re.M)
    assert len(rows) == 16
    for row in rows:
        file = ''
        for name in re.findall(r'`(test_\w+(?:\.py)?)`', row):
            if name.endswith('.py'):
                (file, ) = CHECKOUT.glob(f'tests/*/{name}')
            else:
                assert f'\ndef {name}(' in file.read_text('utf-8'), name
