# Copyright (c) greenmim authors. All rights reserved.
"""What the benchmarks report is consistent. Nothing here is about speed."""
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from greenmim.benchmarking import attention_cost, input, pages, plots, windows
from greenmim.benchmarking.breakdown import BACKWARD, REGION, _find, breakdown
from greenmim.benchmarking.contenders import (Contender, build_simmim,
                                              green_contenders,
                                              variant_contenders)
from greenmim.benchmarking.grouping import bound_of_groups, cost_bound, cost_of
from greenmim.benchmarking.results import write_marked
from greenmim.benchmarking.steps import Stepper, peak_memories
from greenmim.datasets import ImageWindows
from greenmim.models.masking import MaskPlanner, random_mask
from greenmim.ops import VisibleLayout, Window, plan_groups
from greenmim.ops.planning import CPU_COST, GPU_COST
from tests.backbones import CONVNEXT, FAMILIES
from tests.conftest import CHECKOUT
from tests.micro import micro_config, micro_model

TOOLS = CHECKOUT / 'tools' / 'analysis_tools'
BENCHMARK = TOOLS / 'benchmark.py'
GROUPING = TOOLS / 'benchmark_grouping.py'
PLOT = TOOLS / 'plot_benchmarks.py'


@pytest.fixture
def measured(run_tool, make_config, tmp_path):
    """Run benchmark.py on the micro model, and read what it wrote."""

    def measure(*arguments) -> dict:
        file = tmp_path / 'out' / 'result.json'
        run_tool(BENCHMARK, make_config(), '--device', 'cpu', '--batch-size',
                 2, '--rounds', 2, '--json', file, *arguments)
        report = json.loads(file.read_text())
        assert {'hardware', 'date', 'torch',
                'greenmim'} <= set(report['environment'])
        assert str(file) in report['command']
        (result, ) = report['results']
        return result

    return measure


def test_step(measured, capsys):
    result = measured('--mask-scope', 'batch,image', '--optimizer',
                      '--breakdown')
    rows = {row['name']: row for row in result['rows']}
    assert list(rows) == [
        'greenmim, mask per batch', 'greenmim, mask per image',
        'dense backbone', 'simmim'
    ]
    assert (result['visible_units'], result['units']) == (1, 4)
    reference, dense = rows['simmim'], rows['dense backbone']
    fastest = dense['seconds'] / 4 + result['decoder_seconds']
    assert result['limit'] == pytest.approx(reference['seconds'] / fastest)
    for name, row in rows.items():
        green = name.startswith('greenmim')
        assert len(row['all_seconds']) == 2 and min(row['all_seconds']) > 0
        assert row['seconds'] == statistics.median(row['all_seconds'])
        assert row['images_per_second'] == pytest.approx(2 / row['seconds'])
        assert row['ratio'] == pytest.approx(reference['seconds'] /
                                             row['seconds'])
        assert row['optimizer_seconds'] > 0
        assert ('share_of_limit' in row) == green
        if green:
            assert row['share_of_limit'] == pytest.approx(fastest /
                                                          row['seconds'])
            assert 0 < row['fill_rate'] <= 1 and row['planning_seconds'] > 0

        shares = row['breakdown']
        assert sum(shares.values()) == pytest.approx(1)
        absent = {kind for kind, share in shares.items() if not share}
        # SimMIM draws its masks, too. The backbone alone has nothing else.
        assert absent == ({'decoder', 'loss'}
                          if name == 'dense backbone' else set())
    assert 'limit by token count' in capsys.readouterr().out


def test_step_without_dense_contenders(measured):
    result = measured('--against', '', '--dtype', 'bf16', '--attention',
                      'sdpa', '--plan-ahead')
    assert (result['attention'], result['plan_ahead']) == ('sdpa', True)
    assert 'limit' not in result
    (row, ) = result['rows']
    assert row['name'] == 'greenmim, mask per batch'
    assert not {'ratio', 'share_of_limit', 'breakdown'} & set(row)


def test_variants_take_turns(measured):
    """Each with its own settings, relative to the first contender."""
    result = measured('--against', '', '--variants',
                      'sdpa,cpu-groups,fixed-groups+eager', '--plan-ahead')
    rows = {row['name']: row for row in result['rows']}
    assert list(rows) == [
        'greenmim, mask per batch', 'greenmim, sdpa', 'greenmim, cpu-groups',
        'greenmim, fixed-groups+eager'
    ]
    first = rows[result['reference']]
    assert first is result['rows'][0] and 'limit' not in result
    for row in rows.values():
        assert row['ratio'] == pytest.approx(first['seconds'] / row['seconds'])
        assert 0 < row['fill_rate'] <= 1
    # The visible unit is one token in the last stage.
    assert (rows['greenmim, fixed-groups+eager']['fill_rate']
            < rows['greenmim, cpu-groups']['fill_rate'])


def test_variants_have_their_settings():
    images = torch.randn(1, 3, 64, 64)
    variants = variant_contenders(
        Config(micro_config()), images, ['eager', 'fixed-groups'])
    backends = [variant.model.backbone.attn_backend for variant in variants]
    assert backends == ['eager', 'auto']
    planners = [variant.draw.func.group_planner for variant in variants]
    assert [planner.fixed for planner in planners] == [False, True]
    assert [planner.cost for planner in planners] == [CPU_COST, GPU_COST]


def test_contenders_have_one_architecture(measured):
    """Windows as a list, larger than the map; any channels and sides."""
    arguments = ('--image-size', 96, 64, '--mask-ratio', 0.5, '--against',
                 'simmim', '--cfg-options', 'model.backbone.in_channels=1',
                 'model.backbone.window_size=[7,6,4,4]',
                 'model.neck.out_channels=1024')
    result = measured(*arguments)
    assert (result['image_size'], result['units']) == ([96, 64], 6)
    assert result['visible_units'] == 3
    checkpointed = measured(*arguments, '--with-cp')
    for plain, row in zip(result['rows'], checkpointed['rows']):
        assert row['name'] == plain['name']
        assert row['peak_memory'] < plain['peak_memory']


def test_step_of_convnext(run_tool, make_config, tmp_path, capsys):
    """Against the encoder of SparK and the dense backbone, not SimMIM."""
    config, file = tmp_path / 'convnext.py', tmp_path / 'convnext.json'
    config.write_text(
        f'_base_ = {str(make_config())!r}\n'
        "model = dict(backbone=dict(_delete_=True, arch=dict(depths=[1] * 4, "
        "channels=[4, 8, 8, 8]), type='greenmim.GreenMIMConvNeXt'), "
        'neck=dict(in_channels=8))\n')
    arguments = (BENCHMARK, config, '--device', 'cpu', '--batch-size', 2,
                 '--rounds', 1, '--image-size', 64)
    run_tool(*arguments, '--json', file)
    (result, ) = json.loads(file.read_text())['results']
    assert [row['name'] for row in result['rows']] == [
        'greenmim, mask per batch', 'dense backbone', 'spark encoder'
    ]
    assert (result['image_size'], result['reference']) == ([64, 64],
                                                           'dense backbone')
    with pytest.raises(SystemExit, match='simmim'):
        run_tool(*arguments, '--against', 'simmim')
    with pytest.raises(SystemExit, match='square'):
        run_tool(*arguments, 96)


@pytest.mark.parametrize(
    'argument',
    ['--against=simmin', '--mask-scope=all', '--variants=sdpa+fast'])
def test_unknown_names_are_refused(run_tool, capsys, argument):
    with pytest.raises(SystemExit):
        run_tool(BENCHMARK, argument)
    assert 'expected names of' in capsys.readouterr().err


def test_out_of_memory_names_the_contender():

    def loss(images, mask):
        raise torch.OutOfMemoryError('tried to allocate 2 TiB')

    contender = Contender('simmim', torch.nn.Linear(1, 1), loss)
    with pytest.raises(
            SystemExit, match=r'(?s)simmim ran out .* batch of 3.*2 Ti'):
        Stepper(torch.zeros(3, 1))(contender)


def test_peak_memory_is_that_of_the_step():
    model = torch.nn.Linear(1000, 1000, bias=False)
    images = torch.randn(1000, 1000)
    weights = 1000 * 1000 * 4
    contenders = [
        Contender(name, model, lambda images, mask: model(images).sum())
        for name in ('first', 'second')
    ]
    for contender in contenders:
        Stepper(images)(contender)  # leaves gradients
    peaks = peak_memories(contenders, Stepper(images))
    assert peaks['first'] == peaks['second']
    # Weights; then the output, or its gradient and the weights', with a
    # transposed copy at most.
    assert 2 * weights < peaks['first'] < 4.1 * weights


def event(name, parent=None, seq=-1):
    return SimpleNamespace(
        name=name, cpu_parent=parent, fwd_thread=1, sequence_nr=seq)


def test_breakdown_follows_the_gradient():
    node = event(f'{BACKWARD}MmBackward0', seq=7)
    product = event('aten::mm', node)
    assert _find(product,
                 {(1, 7): 'decoder'}) == ('matrix products', 'decoder')
    assert _find(product, {(2, 7): 'decoder'}) == ('matrix products', None)
    # Recomputed inside a backward node, it belongs where it runs.
    region = event(f'{REGION}loss', node)
    copy = event('aten::copy_', event('aten::index_select', region))
    assert _find(copy, {(1, 7): 'decoder'}) == ('gathers', 'loss')
    assert _find(event('Optimizer.step#AdamW.step'), {}) == (None, 'optimiser')


@pytest.mark.parametrize('name, parent, kind', [
    ('aten::bmm', 'aten::matmul', 'attention'),
    ('aten::add', 'aten::_scaled_dot_product_flash_attention', 'attention'),
    ('autograd::engine::evaluate_function: FusedGroupAttentionBackward', '',
     'attention'),
    ('aten::native_batch_norm_backward', '', 'norms'),
    ('aten::silu_', '', 'activations'),
    ('aten::copy_', 'aten::contiguous', 'gathers'),
    ('aten::copy_', 'aten::linear', 'matrix products'),
    ('aten::copy_', 'aten::_to_copy', 'other'),
    ('aten::clone', 'torch::autograd::AccumulateGrad', 'other'),
    ('aten::add', '', None),
])
def test_kinds_of_operators(name, parent, kind):
    parent = event(parent) if parent else None
    assert _find(event(name, parent), {}) == (kind, None)


def test_breakdown_of_the_decoder():
    images = torch.randn(1, 3, 64, 64)
    _, decoder = green_contenders(micro_model(), images, ['batch'])
    shares = breakdown(decoder, Stepper(images))
    assert {kind
            for kind, share in shares.items()
            if share} == {'decoder', 'loss', 'other', 'planning'}


@pytest.mark.parametrize('family', FAMILIES, ids=str)
def test_breakdown_of_every_backbone(family):
    size, options = family.cases[family.default]
    model = family.green(**dict(family.micro, **options))
    planner = MaskPlanner(model.make_planner(), model.unit_size)
    contender = Contender('green', model,
                          lambda images, plan: model(images, plan).sum(),
                          lambda: planner(1, size))
    images = torch.randn(1, options.get('in_channels', 3), *size)
    shares = breakdown(contender, Stepper(images))
    for kind in ('matrix products', 'norms', 'activations', 'planning'):
        assert shares[kind] > 0, kind
    assert (shares['attention'] > 0) == (family is not CONVNEXT)


def test_simmim_is_the_dense_twin():
    model = micro_model()
    simmim = build_simmim(Config(micro_config()), model.backbone, (64, 64))
    green = model.backbone.state_dict()
    dense = simmim.backbone.state_dict()
    assert set(dense) == {*green, 'mask_token'}
    differing = {
        name
        for name in green if green[name].shape != dense[name].shape
    }
    # The last map has 2 x 2 tokens: its window of 4 shrinks to 2.
    assert differing == {
        f'stages.3.blocks.0.attn.w_msa.relative_position_{name}'
        for name in ('bias_table', 'index')
    }


def test_cost_bound_of_plans():
    # Three windows of more than half a group, and a fourth that fits nowhere
    assert bound_of_groups([6, 6, 6, 5], 10) == 4
    layout = VisibleLayout.from_mask(random_mask(1, (7, 7), 0.75))
    plan = plan_groups(layout, 8, Window(7, 3, 7))
    assert 0 < cost_bound(plan) <= cost_of(plan)
    layout = VisibleLayout.from_mask(random_mask(1, (2, 2), 0))
    full = plan_groups(layout, 8, Window(8, 0, 8))  # 4 windows of 64 tokens
    assert cost_bound(full) == cost_of(full) == 4 * 64**2


def test_grouping(run_tool, tmp_path, capsys):
    file = tmp_path / 'grouping.json'
    run_tool(GROUPING, '--image-size', 96, 128, '--window', 7, '--num-masks',
             1, 3, '--rounds', 2, '--json', file)
    results = json.loads(file.read_text())['results']
    assert [(row['image_size'], row['num_masks'])
            for row in results] == [([96, 96], 1), ([96, 96], 3),
                                    ([128, 128], 1), ([128, 128], 3)]
    for row in results:
        assert 0 < row['planning_seconds'] <= row['slowest_seconds']
        assert row['index_seconds'] > 0
        assert 0 < row['fill_rate'] <= 1 and row['cost_above_bound'] >= 0
    assert 'above the bound' in capsys.readouterr().out


def test_plots_and_tables(run_tool, tmp_path):
    """No number is typed by hand: run tools/analysis_tools/plot_benchmarks.py.
    """
    shutil.copytree(CHECKOUT / 'benchmarks', tmp_path / 'benchmarks')
    (tmp_path / 'docs').mkdir()
    names = 'README.md', 'docs/benchmarks.md'
    for name in names:
        shutil.copy(CHECKOUT / name, tmp_path / name)
        write_marked(tmp_path / name, 'old', pages.MARK)
    run_tool(PLOT, '--root', tmp_path)
    for name in names:
        text = (tmp_path / name).read_text('utf-8')
        assert text == (CHECKOUT / name).read_text('utf-8')
        pictures = re.findall(r'\((\S+\.svg)\)', text)
        assert pictures
        for picture in pictures:
            drawn = (tmp_path / name).parent / picture
            assert '<svg' in drawn.read_text()[:1000]


def test_numbers_of_the_tables():
    green = dict(
        name='greenmim, mask per batch', seconds=2., optimizer_seconds=1.)
    dense = dict(name='simmim', seconds=6., optimizer_seconds=1.)
    result = dict(
        batch_size=8,
        visible_units=12,
        rows=[green, dense],
        reference='simmim')
    assert pages.whole_step_ratio(result,
                                  green) == '2.33x'  # (6 + 1) / (2 + 1)
    # 2 s for 8 * 12 * 64 tokens
    assert pages.token_microseconds(result) == pytest.approx(325.5, abs=.05)
    files = [Path(f'size_{number}.json') for number in (10, 9)]
    assert sorted(files, key=pages.natural_key) == files[::-1]


def test_machines_stay_apart(tmp_path):
    """A result from a GPU has its own panel, and no unmeasured row."""
    results = pages.load(CHECKOUT / 'benchmarks')
    assert '| on a GPU | not measured |' in pages.readme_block(results)
    measured = next(
        result for result in pages.with_breakdown(results['step'])
        if result['reference'] == 'simmim')
    results['step'].append(
        dict(
            measured,
            dtype='bf16',
            plan_ahead=True,
            attention='fused',
            environment=dict(
                measured['environment'], device='cuda', hardware='a GPU')))
    block = pages.readme_block(results)
    assert 'not measured' not in block
    assert 'GPU bf16, fused attention, planned ahead' in block
    assert len(plots.grouped(results['step'], plots.panel_name)) == 2
    plots.draw_all(results, tmp_path)
    one = (tmp_path / 'memory.svg').read_text()
    two = (tmp_path / 'breakdown.svg').read_text()
    heights = [
        float(re.search(r'height="([\d.]+)pt"', svg)[1]) for svg in (one, two)
    ]
    assert heights[1] == 2 * heights[0]


def test_nothing_measured(tmp_path):
    assert pages.readme_block({}) == 'Not measured yet.'
    assert pages.docs_block({}).count('Not measured yet.') == 5
    plots.draw_all({}, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / 'README.md').write_text('no markers')
    with pytest.raises(ValueError, match='expected the lines'):
        write_marked(tmp_path / 'README.md', 'text', pages.MARK)


def check_command(monkeypatch, words):
    """A command of the documents names configs and options that exist."""
    monkeypatch.setattr(sys, 'argv', words)
    main = runpy.run_path(str(CHECKOUT / words[0]))['main']
    args = main.__globals__['parse_args']()
    for config in getattr(args, 'configs', []):
        assert (CHECKOUT / config).is_file()
    return args


def test_list_of_measurements(monkeypatch, tmp_path):
    """benchmarks/run.sh runs commands that exist, each for its own file."""
    log = tmp_path / 'log'
    python = tmp_path / 'python'
    python.write_text('#!/usr/bin/env bash\n'
                      f'printf "%s\\n" "$(printf "%q " "$@")" >>{log}\n')
    python.chmod(0o755)
    subprocess.run(['bash', CHECKOUT / 'benchmarks' / 'run.sh', 'nowhere'],
                   env=dict(
                       os.environ,
                       PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'),
                   check=True)
    files = []
    for line in log.read_text().splitlines():
        words = shlex.split(line)
        assert words[:2] == ['-W', 'ignore']
        args = check_command(monkeypatch, words[2:])
        files.append(args.json)
        assert re.fullmatch(r'benchmarks/[\w.-]+_nowhere\.json', args.json)
    assert len(files) == len(set(files)) == 29


def test_windows_hold_the_pixels_of_the_image(tmp_path):
    """Of every kind of file: the kinds differ in speed alone."""
    pytest.importorskip('rasterio')
    windows.write_files(tmp_path, 256, 1, 128)
    image = windows.made_image(256, 0)
    assert image.std() > 20
    for kind in windows.KINDS:
        dataset = ImageWindows(
            str(tmp_path / kind), [dict(type='greenmim.LoadImage')],
            window_size=128)
        for index in range(len(dataset)):
            part = dataset[index]['img'][..., ::-1]
            assert part.shape == (128, 128, 3)
            corners = np.argwhere(
                (image[:129, :129] == part[0, 0]).all(-1)).tolist()
            assert any(
                np.array_equal(image[y:y + 128, x:x + 128], part)
                for y, x in corners)
    assert len(list((tmp_path / windows.TILES).iterdir())) == 4


def test_windows_tool(run_tool, tmp_path):
    pytest.importorskip('rasterio')
    file = tmp_path / 'windows.json'
    run_tool(TOOLS / 'benchmark_windows.py', '--side', 128, '--files', 1,
             '--window', 64, '--crop', 32, '--rounds', 2, '--json', file)
    rows = json.loads(file.read_text())['results']
    assert [row['kind'] for row in rows] == [*windows.KINDS, windows.TILES]
    tiles = rows[-1]['images_per_second']
    for row in rows:
        assert len(row['all_seconds']) == 2
        assert row['images_per_second'] * statistics.median(
            row['all_seconds']) == pytest.approx(1)
        assert row['share_of_tiles'] == pytest.approx(
            row['images_per_second'] / tiles)


def test_input_tool(run_tool, tmp_path, capsys, monkeypatch):
    """Of small files; both decoders load the same crops."""
    kinds = {
        name: ((60, 45), *rest)
        for name, (_, *rest) in list(input.KINDS.items())[2:]
    }
    monkeypatch.setattr(input, 'KINDS', kinds)
    file = tmp_path / 'input.json'
    run_tool(TOOLS / 'benchmark_input.py', '--crop', 32, '--rounds', 2,
             '--json', file)
    rows = json.loads(file.read_text())['results']
    assert [row['kind'] for row in rows] == list(kinds)
    printed = capsys.readouterr().out
    for row in rows:
        speeds = row['images_per_second']
        for decoder, seconds in row['all_seconds'].items():
            assert len(seconds) == 2
            assert speeds[decoder] * statistics.median(
                seconds) == pytest.approx(1)
        assert row['ratio'] == pytest.approx(speeds['opencv'] /
                                             speeds['pillow'])
        assert f'{row["ratio"]:.2f}x' in printed


def test_fit_finds_the_coefficients():
    groups, sizes = zip(*itertools.product([1, 5, 9], [16, 40, 72, 130]))
    seconds = [
        n * (2e-6 * attention_cost.round_up(g, 64)**2 + 5e-5 * g) + 3e-4
        for n, g in zip(groups, sizes)
    ]
    fitted = attention_cost.fit(sizes, groups, seconds, tile=64)
    assert fitted['logit_seconds'] == pytest.approx(2e-6)
    assert fitted['slot_seconds'] == pytest.approx(5e-5)
    assert fitted['call_seconds'] == pytest.approx(3e-4)
    assert fitted['overhead'] == pytest.approx(25)
    assert fitted['error'] < 1e-9
    # Another side of the tiles does not explain these times.
    assert attention_cost.fit(sizes, groups, seconds)['error'] > 0.01


@pytest.mark.parametrize('size', [7, 49, 64, 150])
def test_groups_of_the_fit_are_full(size):
    """Of windows of at most 7 x 7 tokens in different places."""
    plan = attention_cost.full_groups(3, size)
    assert (plan.num_groups, plan.group_size, plan.fill_rate) == (3, size, 1)
    assert plan.token_of_slot.equal(torch.arange(3 * size))
    pairs = list(
        zip(plan.window_of_slot.flatten().tolist(),
            plan.position_of_slot.flatten().tolist()))
    assert len(set(pairs)) == len(pairs)
    windows = [set(row.tolist()) for row in plan.window_of_slot]
    assert sum(map(len, windows)) == len(set.union(*windows))
    differences = plan.position_of_slot[:, :, None] - (
        plan.position_of_slot[:, None]) + plan.middle
    assert 0 <= differences.min() and differences.max() < plan.num_entries


def test_attention_cost_tool(run_tool, tmp_path, capsys):
    file = tmp_path / 'cost.json'
    run_tool(TOOLS / 'fit_attention_cost.py', '--batch-size', 1, '--num-heads',
             2, '--sizes', 16, 1500, '--groups', 1, 3, '--rounds', 2,
             '--dtype', 'bf16', '--json', file)
    (result, ) = json.loads(file.read_text())['results']
    # Three groups of 1500 slots are more than an image can have.
    assert result['group_sizes'] == [16, 1500, 16]
    assert result['num_groups'] == [1, 1, 3]
    assert result['dtype'] == 'bf16'
    # Three unknowns and three cases: the fit is exact.
    for g, n, seconds in zip(result['group_sizes'], result['num_groups'],
                             result['seconds']):
        fitted = result['logit_seconds'] * n * attention_cost.round_up(
            g, result['tile'])**2
        fitted += result['slot_seconds'] * n * g + result['call_seconds']
        assert fitted == pytest.approx(seconds)
    assert [fit['tile'] for fit in result['fits']] == [1, 16, 64]
    assert result['error'] == min(fit['error'] for fit in result['fits'])
    assert result['overhead'] == pytest.approx(result['slot_seconds'] /
                                               result['logit_seconds'])
    assert 'a slot costs' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='at least three'):
        run_tool(TOOLS / 'fit_attention_cost.py', '--sizes', 16, '--groups', 1)
