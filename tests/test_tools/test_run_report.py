# Copyright (c) greenmim authors. All rights reserved.
"""The report of a run, and the energy meter that it uses."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from greenmim.benchmarking import forecast
from greenmim.engine import RunReportHook
from greenmim.engine.cost import energy, memory, run_meter_hook
from greenmim.engine.cost.energy import EnergyMeter
from greenmim.engine.cost.timing import time_planning
from tests.micro import scalars_of

TOOLS = Path(__file__).parents[2] / 'tools'
FORECAST = TOOLS / 'analysis_tools' / 'forecast.py'


def test_a_given_power_times_the_time():
    meter = EnergyMeter(watts=1000.)
    meter.start()
    begin = time.perf_counter()
    time.sleep(0.02)
    joules = meter.joules()
    assert 20 <= joules <= 1000 * (time.perf_counter() - begin)
    assert meter.joules() >= joules
    meter.start()
    assert meter.joules() < joules
    assert meter.source == '1000 W, as given'


def test_counters_of_the_processor(tmp_path, monkeypatch):
    """Two packages, one of which runs over."""
    for i, (value, limit) in enumerate([(5000000, 10**9), (90, 100)]):
        folder = tmp_path / f'intel-rapl:{i}'
        folder.mkdir()
        (folder / 'energy_uj').write_text(f'{value}\n')
        (folder / 'max_energy_range_uj').write_text(f'{limit}\n')
    counters = energy._read_rapl(tmp_path)
    assert sorted(counters.values()) == [90, 5000000]
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(
        energy, '_read_rapl', lambda read=energy._read_rapl: read(tmp_path))
    meter = EnergyMeter()
    assert 'RAPL' in meter.source
    meter.start()
    (tmp_path / 'intel-rapl:0' / 'energy_uj').write_text('8000000')
    (tmp_path / 'intel-rapl:1' / 'energy_uj').write_text('40')
    assert meter.joules() == pytest.approx(3 + 50e-6)
    # What cannot be read is no source.
    (tmp_path / 'intel-rapl:1' / 'energy_uj').write_text('')
    monkeypatch.setattr(energy, 'find_spec', lambda name: None)
    assert not EnergyMeter().source


@pytest.mark.parametrize('error', [None, ModuleNotFoundError, RuntimeError])
def test_the_power_of_the_gpus(monkeypatch, error):
    """By NVML, of all that this process sees; not where it is missing."""

    def power_draw(device=0):
        if error is not None:
            raise error
        return 1000 * (200 + 100 * device)  # milliwatts

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'power_draw', power_draw)
    clock = SimpleNamespace(now=0.)
    monkeypatch.setattr(energy.time, 'perf_counter', lambda: clock.now)
    meter = EnergyMeter()
    meter.start()
    clock.now = 2.
    if error is None:
        assert 'NVML' in meter.source
        assert meter.joules() == pytest.approx(2 * (200 + 300))
        clock.now = 3.
        assert meter.joules() == pytest.approx(3 * (200 + 300))
    else:
        assert meter.joules() is None and not meter.source


class Files:
    """Of the system, as ``Path`` reads them."""

    def __init__(self, texts):
        self.texts = texts

    def __call__(self, name):
        text = self.texts.get(name)

        def read_text():
            if text is None:
                raise FileNotFoundError(name)
            return text

        return SimpleNamespace(
            exists=lambda: text is not None, read_text=read_text)


def test_peak_memory_without_proc(monkeypatch):
    """On macOS in bytes, elsewhere in KiB; on Windows it is not known."""
    peak = memory.peak_memory()
    monkeypatch.setattr(memory, 'Path', Files({}))
    # The larger one may be that of the parent process.
    assert memory.peak_memory() >= .9 * peak
    monkeypatch.setattr(memory.sys, 'platform', 'darwin')
    monkeypatch.setattr(memory, 'find_spec', lambda name: True)
    usage = SimpleNamespace(ru_maxrss=3 * 2**30)
    monkeypatch.setitem(
        sys.modules, 'resource',
        SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage))
    assert memory.peak_memory() == 3 * 2**30
    monkeypatch.setattr(memory, 'find_spec', lambda name: None)
    assert memory.peak_memory() is None


@pytest.mark.parametrize('limit', ['1000000\n', 'max\n', None])
def test_memory_of_a_container(monkeypatch, limit):
    machine = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    monkeypatch.setattr(memory, 'Path',
                        Files({'/sys/fs/cgroup/memory.max': limit}))
    expected = 10**6 if limit and limit[0] == '1' else machine
    assert memory.memory_limit() == expected


def test_memory_of_a_gpu(monkeypatch):
    """That of PyTorch's tensors, and none of the process."""
    found = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda i: found)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda: 12345)
    assert memory.memory_limit() == 80 * 2**30
    assert memory.peak_memory() == 12345


def test_the_estimate_of_codecarbon(monkeypatch):
    """Where it is installed and nothing can be measured."""

    class Tracker:
        """One watt-hour for every task."""

        def __init__(self, **kwargs):
            self.running = False

        def start_task(self):
            assert not self.running
            self.running = True

        def stop_task(self):
            assert self.running
            self.running = False
            return SimpleNamespace(energy_consumed=0.001)

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(energy, '_read_rapl', lambda: {})
    monkeypatch.setattr(energy, 'find_spec', lambda name: True)
    monkeypatch.setitem(sys.modules, 'codecarbon',
                        SimpleNamespace(OfflineEmissionsTracker=Tracker))
    meter = EnergyMeter()
    assert 'codecarbon' in meter.source
    for _ in range(2):
        meter.start()
        assert meter.joules() == pytest.approx(3600)
        assert meter.joules() == pytest.approx(7200)


def test_without_a_source(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(energy, '_read_rapl', lambda: {})
    monkeypatch.setattr(energy, 'find_spec', lambda name: None)
    meter = EnergyMeter()
    meter.start()
    assert meter.joules() is None and not meter.source


def test_report_of_a_run(run_tool, make_config, tmp_path):
    """Two epochs of three steps; the weights are those without the hook."""
    weights = []
    for hooks in ([], [dict(type='greenmim.RunReportHook', watts=50.)]):
        config = make_config(
            {'custom_hooks': [dict(type='greenmim.RecordLosses'), *hooks]})
        folder = tmp_path / f'run{len(hooks)}'
        run_tool(TOOLS / 'train.py', config, '--work-dir', folder)
        weights.append(
            torch.load(folder / 'epoch_2.pth',
                       weights_only=True)['state_dict'])
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    figures = json.loads((folder / 'report.json').read_text())
    lines = (folder / 'losses_0.txt').read_text().splitlines()
    assert figures['iterations'] == len(lines)
    assert figures['images'] == 4 * len(lines)
    assert figures['first_loss'] == pytest.approx(
        float(lines[0].split()[1]), rel=1e-5)
    assert figures['kwh'] == pytest.approx(
        50 * figures['hours'] / 1000, rel=0.05)
    assert figures['dense_hours'] == hours_with_all_tokens(figures)
    shares = [figures[f'{name}_share'] for name in ('data', 'plan', 'compute')]
    assert min(shares) > 0 and sum(shares) < 1
    assert not figures['planned_by_workers'] and 0 < figures['fill_rate'] <= 1
    assert figures['peak_memory'] > 2**27  # PyTorch alone takes more
    text = (folder / 'report.md').read_text()
    assert f'| {figures["iterations"]}, {figures["images"]} |' in text
    assert 'not finite | not measured' in text  # there is no NonFiniteHook
    assert (folder / 'report.png').read_bytes()[:4] == b'\x89PNG'
    scalars = scalars_of(folder)
    assert len(scalars) == len(lines)
    for line in scalars:
        assert line['images_per_second'] > 0 and 0 < line['fill_rate'] <= 1
        assert 0 < line['data_share'] + line['compute_share'] < 1


def test_report_of_planning_workers_and_steps_left_out(run_tool, make_config,
                                                       tmp_path):
    """The micro config's own mask is taken out, for one to be planned."""
    pipeline = [dict(type='greenmim.LoadImage'), dict(type='PackInputs')]
    config = make_config({
        'train_dataloader.dataset.pipeline':
        pipeline,
        # With which weights are infinite after the first step.
        'optim_wrapper.optimizer.lr':
        1e38,
        'custom_hooks': [
            dict(type='greenmim.PlanAheadHook'),
            dict(type='greenmim.NonFiniteHook'),
            dict(type='greenmim.RunReportHook')
        ]
    })
    run_tool(TOOLS / 'train.py', config, '--work-dir', tmp_path / 'run')
    figures = json.loads((tmp_path / 'run' / 'report.json').read_text())
    assert figures['planned_by_workers'] and figures['plan_share'] == 0
    assert figures['steps_left_out'] == figures['iterations'] - 1
    assert figures['went_back'] == 0
    text = (tmp_path / 'run' / 'report.md').read_text()
    assert 'done by the data-loading workers, ' in text


def hours_with_all_tokens(figures):
    more = figures['dense_backbone_seconds'] - figures['backbone_seconds']
    return pytest.approx(figures['hours'] +
                         more * figures['iterations'] / 3600)


def test_forecast_of_a_run(tmp_path, environment):
    """In a process of its own, whose memory nothing else has filled."""
    config = (
        TOOLS.parent / 'configs' / 'quickstart' /
        'greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py')
    out = subprocess.run([
        sys.executable, FORECAST, config, '--steps', '3', '--warmup', '1',
        '--watts', '50', '--json', tmp_path / 'forecast.json', '--cfg-options',
        'train_dataloader.batch_size=16', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False'
    ], env=environment, cwd=tmp_path, check=True, text=True,
        stdout=subprocess.PIPE).stdout  # yapf: disable
    figures = json.loads((tmp_path / 'forecast.json').read_text())
    assert figures['hours'] == pytest.approx(figures['step_seconds'] *
                                             figures['iterations'] / 3600)
    assert figures['kwh'] == pytest.approx(
        50 * figures['hours'] / 1000, rel=0.2)
    assert figures['dense_hours'] == hours_with_all_tokens(figures)
    assert figures['images_per_second'] == pytest.approx(
        16 / figures['step_seconds'])
    assert not list(tmp_path.glob('**/*.pth'))
    # Each takes its pixels and more, and all of them less than there is.
    assert figures['bytes_per_image'] > 4 * 3 * 128 * 128
    assert figures['largest_batch_size'] * figures['bytes_per_image'] < (
        os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
    assert 'hours with all tokens' in out and 'images fit into the' in out
    # Without workers, loading adds to every step.
    assert figures['workers'] == 0 < figures['workers_needed']
    assert 'loading is the bottleneck' in out


@pytest.mark.parametrize('workers, needed, text', [
    (2, 3, 'loading is the bottleneck, 3 workers instead of 2'),
    (3, 3, 'computing is the bottleneck, 3 of 3 workers'),
])
def test_the_bottleneck(monkeypatch, workers, needed, text):
    """A worker takes 10 ms for an image, and a step of 8 computes 30 ms."""
    clock = SimpleNamespace(now=0.)

    class Images(list):

        def __getitem__(self, index):
            clock.now += 0.01
            return super().__getitem__(index)

    monkeypatch.setattr(forecast.time, 'perf_counter', lambda: clock.now)
    loader = SimpleNamespace(
        dataset=Images(range(50)), num_workers=workers, batch_size=8)
    figures = forecast.input_figures(
        SimpleNamespace(train_dataloader=loader),
        dict(step_seconds=0.04, data_share=0.25))
    assert figures['input_seconds'] == pytest.approx(0.01)
    assert figures['workers_needed'] == needed
    line = forecast.bottleneck(figures)
    assert line.startswith('100 images/s a worker; ') and text in line


def test_no_larger_batch_is_tried_where_memory_is_nearly_full(monkeypatch):
    sizes = []
    monkeypatch.setattr(forecast, 'memory_limit', lambda: 10_000)
    monkeypatch.setattr(forecast, 'run_step',
                        lambda runner, number: sizes.append(number))
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(batch_size=8))

    def figures(peak, larger):
        monkeypatch.setattr(forecast, 'peak_memory', lambda: larger)
        return forecast.batch_figures(runner, peak)

    for peak, number in ((2000, 32), (4000, 16), (7000, 10)):
        assert figures(peak, peak + 100 * (number - 8)) == dict(
            bytes_per_image=100, largest_batch_size=8 + (9000 - peak) // 100)
        assert sizes.pop() == number
        sizes.clear()
    unknown = dict(bytes_per_image=None, largest_batch_size=None)
    assert figures(8000, 0) == unknown and not sizes
    assert figures(2000, 2000) == unknown


@pytest.mark.parametrize('changes, message', [
    (dict(), None),
    (dict(hours=2.28, kwh=2.28), None),
    (dict(hours=1.76), None),
    (dict(hours=2.32), 'wrong by more than 15%'),
    (dict(peak_memory=2.4 * 2**30), 'wrong by more than 15%'),
    (dict(kwh=1.68), 'wrong by more than 15%'),
])
def test_a_forecast_is_checked(run_tool, tmp_path, capsys, changes, message):
    report = dict(iterations=9, hours=2., peak_memory=2 * 2**30, kwh=2.)
    (tmp_path / 'report.json').write_text(json.dumps(report))
    (tmp_path / 'forecast.json').write_text(
        json.dumps(dict(report, **changes)))
    arguments = [
        tmp_path / 'forecast.json', '--check', tmp_path / 'report.json'
    ]
    if message is None:
        run_tool(FORECAST, *arguments)
    else:
        with pytest.raises(SystemExit, match=message):
            run_tool(FORECAST, *arguments)
    out = capsys.readouterr().out
    for name, value in changes.items():
        assert f'{value / report[name] - 1:+.1%}' in out


def test_what_was_not_measured_is_not_checked(run_tool, tmp_path, capsys):
    """Energy without a source, and memory on Windows."""
    report = dict(iterations=9, hours=2., peak_memory=None)
    for name in 'report', 'forecast':
        (tmp_path / f'{name}.json').write_text(json.dumps(report))
    run_tool(FORECAST, tmp_path / 'forecast.json', '--check',
             tmp_path / 'report.json')
    printed = capsys.readouterr().out
    for name in 'energy, kWh', 'peak memory, GiB':
        assert f'{name:18}  not measured' in printed
    figures = forecast.batch_figures(
        SimpleNamespace(train_dataloader=SimpleNamespace(batch_size=8)), None)
    assert figures == dict(bytes_per_image=None, largest_batch_size=None)


def test_what_cannot_be_timed_is_left_out(monkeypatch):
    """Planning without masks, and all tokens where they do not fit."""
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    assert time_planning(runner, dict()) is None

    def fail(runner, batch):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(run_meter_hook, 'time_backbone', fail)
    hook = RunReportHook(watts=1.)
    hook.batch = dict(inputs=[])
    assert hook.dense_figures(runner, dict(iterations=1)) == dict()


def test_a_forecast_of_another_run_is_refused(run_tool, tmp_path):
    for name, iterations in (('report', 9), ('forecast', 10)):
        (tmp_path / f'{name}.json').write_text(
            json.dumps(dict(iterations=iterations, hours=1.)))
    with pytest.raises(SystemExit, match='a run of 10 iterations'):
        run_tool(FORECAST, tmp_path / 'forecast.json', '--check',
                 tmp_path / 'report.json')


def test_forecast_of_a_run_that_is_too_short(run_tool, make_config):
    with pytest.raises(SystemExit, match='lower --steps'):
        run_tool(FORECAST, make_config(), '--steps', 1000)
