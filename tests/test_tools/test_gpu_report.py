# Copyright (c) greenmim authors. All rights reserved.
"""The report of a GPU: its blocks, its time, and what becomes of its files."""
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from greenmim.benchmarking import gpu_report, kernel_gradient, pages
from greenmim.benchmarking.gpu_report import Block, Report, blocks_of, stop_at
from greenmim.benchmarking.results import write_json, write_marked
from greenmim.benchmarking.step_command import parse_args
from tests.conftest import CHECKOUT

TOOLS = CHECKOUT / 'tools' / 'analysis_tools'


def run(*words) -> str:
    done = subprocess.run([sys.executable, *map(str, words)],
                          cwd=CHECKOUT,
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_the_tool_to_the_tables(tmp_path):
    """As users run both, with the tiny models of a CPU."""
    folder = tmp_path / 'benchmarks'
    names = {
        block.file(block.batch_size, 'here')
        for block in blocks_of('cpu')
    }
    # It goes on where it was: this one has been measured.
    done = folder / 'kernel-gradient_convnext-base_bs1_fp32_here.json'
    write_json(dict(results=[], environment={}), done)
    text = run(TOOLS / 'gpu_report.py', '--device', 'cpu', '--hardware',
               'here', '--out', folder, '--minutes', 20)
    assert text.count('has been measured') == 1
    assert json.loads(done.read_text())['results'] == []
    assert {file.name for file in folder.iterdir()} == names
    (first, ) = json.loads(
        (folder / 'step_swin-micro-w4_128px_r0.75_bs4_fp32_here.json'
         ).read_text())['results']
    assert (first['reference'], first['batch_size']) == ('simmim', 4)
    assert {row['name']
            for row in first['rows']
            } == {'greenmim, mask per batch', 'simmim'}
    assert all('breakdown' in row for row in first['rows'])

    (tmp_path / 'docs').mkdir()
    for name in ('README.md', 'docs/benchmarks.md'):
        shutil.copy(CHECKOUT / name, tmp_path / name)
        write_marked(tmp_path / name, 'old', pages.MARK)
    run(TOOLS / 'plot_benchmarks.py', '--root', tmp_path)
    readme = (tmp_path / 'README.md').read_text('utf-8')
    assert '| swin-micro-w4, 128 px, 75% masked, batch 4, CPU fp32' in readme
    assert '| on a GPU | not measured |' in readme
    docs = (tmp_path / 'docs' / 'benchmarks.md').read_text('utf-8')
    for contender in ('simmim', 'greenmim, mask per batch', 'greenmim, sdpa',
                      'greenmim, fixed-groups', 'spark encoder'):
        assert f'| {contender} |' in docs
    assert 'cuDNN\'s fastest' in docs
    assert '| batch 256, a GPU | not measured |' in docs


def test_the_order_of_a_gpu():
    """What the goals speak of comes first; every command is one."""
    blocks = blocks_of('cuda')
    names = [block.file(block.batch_size, 'h') for block in blocks]
    assert len(set(names)) == len(names)
    assert names[:2] == [
        f'step_swin-base-w7_224px_r0.75_bs{number}_bf16_h.json'
        for number in pages.GPU_GOALS
    ]
    families = {
        'swin-tiny-w7', 'swin-base-w14', 'swin-large-w14', 'swin-v2-base-w8',
        'convnext-base', 'twins-svt-base', 'twins-pcpvt-base', 'pvt-v2-b2',
        'hivit-base', 'vit-base-p16'
    }
    assert families < {block.model for block in blocks}
    for block in blocks:
        if block.tool is Block.tool:
            args = parse_args([*block.words, '--batch-size', '1'])
            (config, ) = args.configs
            assert f'/greenmim_{block.model}_' in config
            assert args.plan_ahead
    first = parse_args(blocks[0].words)
    assert first.against == ['simmim'] and first.optimizer and first.breakdown


@pytest.fixture
def report(tmp_path):
    return Report(tmp_path, 'cpu', 'h', time.monotonic() + 100)


def writes(calls, problem=None):
    """A tool that takes notes of its batch sizes, and fails on demand."""

    def tool(words):
        number = int(words[words.index('--batch-size') + 1])
        calls.append(number)
        if problem:
            problem(number)
        write_json({}, gpu_report.Path(words[words.index('--json') + 1]))

    return tool


def block(model, tool, seconds=1., batch_size=8):
    return Block('step', model, batch_size, seconds, tool=tool)


def test_blocks_without_time_are_left_out(tmp_path, monkeypatch, capsys):
    clock = [0.]
    monkeypatch.setattr(gpu_report, 'time',
                        SimpleNamespace(monotonic=lambda: clock[0]))

    def takes(seconds):

        def problem(number):
            clock[0] += seconds

        return writes([], problem)

    report = Report(tmp_path, 'cpu', 'h', 100.)
    report.run([
        block('a', takes(40), 2),
        block('b', takes(60), 3.1),  # 62 s, if it is as slow
        block('c', takes(20), 2),
        block('d', takes(40), 2)  # 30 s as the two before, which are left
    ])
    assert {file.name
            for file in tmp_path.iterdir()
            } == {f'step_{model}_bs8_bf16_h.json'
                  for model in 'acd'}
    assert 'step_b_bs8_bf16_h.json: left out, about 62 s of the 60 s' in (
        capsys.readouterr().out)
    assert not report.failed


def test_what_does_not_fit_is_halved(report, capsys):
    calls = []

    def problem(number):
        if number > 2:
            raise torch.OutOfMemoryError('tried to allocate 2 TiB')

    blocks = [block('a', writes(calls, problem))]
    report.run(blocks)
    assert calls == [8, 4, 2] and not report.failed
    (file, ) = report.folder.iterdir()
    assert file.name == 'step_a_bs2_bf16_h.json'
    assert '8 images do not fit into the memory; measuring 4' in (
        capsys.readouterr().out)
    report.run(blocks)
    assert calls == [8, 4, 2, 8, 4]

    def never(number):
        raise gpu_report.OutOfMemory('simmim ran out of memory')

    report.run([block('b', writes([], never), batch_size=2)])
    assert report.failed == ['step_b_bs1_bf16_h.json']


def test_a_failure_does_not_end_the_report(report, capsys):

    def problem(number):
        raise RuntimeError('no kernel image is available')

    calls = []
    report.run([
        block('a', writes([], problem)),
        replace(block('b', writes(calls)), condition='-cp')
    ])
    assert calls == [8]
    assert report.failed == ['step_a_bs8_bf16_h.json']
    assert 'no kernel image' in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
def test_the_process_ends_in_time(capfd):
    process = os.fork()
    if process == 0:
        stop_at(time.monotonic() + .2)
        time.sleep(60)
        os._exit(7)
    start = time.monotonic()
    _, status = os.waitpid(process, 0)
    assert os.WEXITSTATUS(status) == 0
    assert time.monotonic() - start < 30
    assert 'The time is over' in capfd.readouterr().out


def test_a_gpu_is_asked_for(run_tool):
    with pytest.raises(SystemExit, match='expected a GPU, found none'):
        run_tool(TOOLS / 'gpu_report.py')


def measured(batch_size, seconds, **changes):
    rows = [
        dict(
            name=name,
            seconds=seconds * factor,
            images_per_second=batch_size / seconds / factor,
            ratio=4 / factor,
            peak_memory=factor * 2**30)
        for name, factor in (('greenmim, mask per batch', 1), ('simmim', 4))
    ]
    return dict(
        dict(
            config='greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k',
            image_size=[224, 224],
            batch_size=batch_size,
            mask_ratio=.75,
            dtype='bf16',
            reference='simmim',
            rows=rows,
            environment=dict(device='cuda', hardware='a fast one')), **changes)


def test_goals_stand_beside_what_was_measured():
    others = [
        measured(64, .1, dtype='fp16'),
        measured(64, .1, mask_ratio=.6),
        measured(64, .1, environment=dict(device='cpu', hardware='a CPU'))
    ]
    table = pages.gpu_table([measured(256, .1), *others])
    rows = [line for line in table.splitlines() if line.startswith('| batch')]
    assert rows == [
        '| batch 256, a fast one | 640 | 2560 | 4.00x | >= 3.5x | 0.25x | '
        '<= 0.30x |',
        '| batch 64, a GPU | not measured | not measured | not measured | '
        '>= 3.0x | not measured | <= 0.30x |'
    ]


def test_kernel_gradients_take_turns(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(kernel_gradient, 'STAGES', {2: 8, 1: 16})
    file = tmp_path / 'kernel.json'
    kernel_gradient.main(
        ['--rounds', '3', '--batch-size', '2', '--json',
         str(file)])
    results = json.loads(file.read_text())['results']
    assert [(row['side'], row['channels']) for row in results] == [(2, 8),
                                                                   (1, 16)]
    for row in results:
        for way in ('library', 'taps'):
            assert row[f'{way}_seconds'] == sorted(row['all_seconds'][way])[1]
    assert '| side | channels | PyTorch, ms | by taps, ms |' in (
        capsys.readouterr().out)
