# Copyright (c) greenmim authors. All rights reserved.
"""The report of a run, and the energy meter behind it."""
import json
import time
from pathlib import Path

import pytest
import torch

from greenmim.engine import energy
from greenmim.engine.energy import EnergyMeter

TOOLS = Path(__file__).parents[2] / 'tools'
FORECAST = TOOLS / 'analysis_tools' / 'forecast.py'


@pytest.fixture(autouse=True)
def neighbours_of_the_tool(monkeypatch):
    monkeypatch.syspath_prepend(str(FORECAST.parent))


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


def test_without_a_source(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(energy, '_read_rapl', lambda: {})
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
    assert figures['dense_hours'] > figures['hours']
    assert 0 <= figures['data_share'] <= 1
    text = (folder / 'report.md').read_text()
    assert f'| {figures["iterations"]}, {figures["images"]} |' in text
    assert 'not measured' in text  # no masks were planned ahead
    assert (folder / 'report.png').read_bytes()[:4] == b'\x89PNG'


def test_forecast_of_a_run(run_tool, make_config, tmp_path, capsys):
    config = make_config({'train_cfg': dict(by_epoch=True, max_epochs=50)})
    run_tool(FORECAST, config, '--steps', 3, '--warmup', 1, '--watts', 50,
             '--json', tmp_path / 'forecast.json')
    figures = json.loads((tmp_path / 'forecast.json').read_text())
    assert figures['hours'] == pytest.approx(figures['step_seconds'] *
                                             figures['iterations'] / 3600)
    assert figures['kwh'] == pytest.approx(
        50 * figures['hours'] / 1000, rel=0.2)
    assert figures['dense_hours'] > figures['hours']
    assert figures['images_per_second'] == pytest.approx(
        4 / figures['step_seconds'])
    assert not list(tmp_path.glob('**/*.pth'))
    assert 'hours with all tokens' in capsys.readouterr().out


def test_forecast_of_a_run_that_is_too_short(run_tool, make_config):
    with pytest.raises(SystemExit, match='lower --steps'):
        run_tool(FORECAST, make_config(), '--steps', 1000)
