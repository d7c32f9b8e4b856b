# Copyright (c) greenmim authors. All rights reserved.
"""Runs that meet the files of an earlier run in their folder."""
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from greenmim.engine.checkpoints import find_latest_whole_checkpoint
from greenmim.engine.hooks import check_run_folder
from tests.conftest import CHECKOUT, LAUNCH
from tests.micro import micro_runner, save_images
from tests.processes import cpu_environment

CONFIG = f'''
_base_ = '{LAUNCH}/micro_config.py'
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='greenmim.SeededSampler'),
    dataset=dict(
        _delete_=True,
        type='greenmim.SamplePhotographs',
        num_views=24,
        pipeline=[
            dict(type='RandomResizedCrop', scale=64),
            dict(type='PackInputs')
        ]))
train_cfg = dict(
    _delete_=True, type='greenmim.ResumableEpochLoop', max_epochs=4)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5, max_keep_ckpts=2),
    seed_step=dict(type='greenmim.SeedStepHook'),
    preemption=dict(type='greenmim.PreemptionHook'),
    run_report=dict(type='greenmim.RunReportHook', watts=100.),
    learning=dict(type='greenmim.LearningHook', interval=3, num_images=4))
custom_hooks = []
randomness = dict(_delete_=True, seed=3)
'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('used')
    (path / 'micro.py').write_text(CONFIG)
    return path


def start(folder, *options):
    return subprocess.Popen([
        sys.executable, '-W', 'ignore', CHECKOUT / 'tools' / 'train.py',
        folder / 'micro.py', '--work-dir', folder / 'run', *options
    ],
                            env=cpu_environment(LAUNCH),
                            stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT,
                            text=True)


def train(folder, *options):
    process = start(folder, *options)
    return process.communicate(timeout=300)[0], process.returncode


def hashes(folder):
    return {
        str(path.relative_to(folder)):
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*') if path.is_file()
    }


def refused(folder, *options):
    """The output of a call that is refused and changes no file."""
    before = hashes(folder)
    output, code = train(folder, *options)
    assert code and hashes(folder) == before
    assert not [
        p for p in folder.rglob('*') if p.is_dir() and not any(p.iterdir())
    ]  # nor leaves an empty folder
    return output


def test_no_run_damages_another(folder):
    """Interrupted, repeated, resumed, repeated, overwritten."""
    run = folder / 'run'
    process = start(folder, '--resume')  # begins in an empty folder
    while not list(run.glob('best_training_iter_*.pth')):
        assert process.poll() is None, process.communicate()[0][-2000:]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 75, output
    done = torch.load(
        find_latest_whole_checkpoint(str(run)), weights_only=True)['meta']
    assert 3 <= done['iter'] < 24

    output = refused(folder, '--cfg-options', 'train_cfg.max_epochs=9')
    for word in ('--resume', '--overwrite', 'resume=True', 'overwrite=True'):
        assert word in output

    output, code = train(folder, '--resume', '--cfg-options',
                         'train_cfg.max_epochs=5')
    assert not code, output
    assert 'max_epochs=5 instead of 4, max_iters=30 instead of 24' in output
    report = json.loads((run / 'report.json').read_text())
    assert report['iterations'] == 30 and report['first_iteration'] == 0
    assert report['images'] == 120
    assert report['kwh'] == pytest.approx(0.1 * report['hours'], rel=1e-3)
    assert 30 * report['step_seconds'] == pytest.approx(3600 * report['hours'])
    assert report['first_loss'] > 0
    # The written settings neither resume nor replace this run.
    assert '\nresume = False\n' in (run / 'micro.py').read_text()

    refused(folder)
    (folder / 'run' / 'mine.txt').write_text('not of a run')
    before = hashes(run)
    output, code = train(folder, '--overwrite')
    assert not code, output
    assert f'Moved the files of the earlier run to {run}/replaced_1' in output
    after = hashes(run)
    for name, content in before.items():
        place = name if name == 'mine.txt' else f'replaced_1/{name}'
        assert after[place] == content, name
    assert json.loads((run / 'report.json').read_text())['iterations'] == 24
    assert '\noverwrite = False\n' in (run / 'micro.py').read_text()


def build(images, checkpoint={}, **options):
    return micro_runner(
        Path('run'),
        dict(
            dataset=dict(
                type='greenmim.ImageFolder',
                data_root=str(images),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='PackInputs')
                ])),
        hooks=[dict(type='greenmim.RunFolderHook')],
        checkpoint=checkpoint,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        **options)


def test_checkpoints_in_another_folder(tmp_path, monkeypatch):
    """They are neither mixed with others nor left behind."""
    monkeypatch.chdir(tmp_path)
    images = save_images(tmp_path / 'images')[0].parent
    moved = [Path('run/epoch_7.pth'), Path('store/run/epoch_8.pth')]
    for path in moved:
        (path.parent / 'replaced_1').mkdir(parents=True)
        path.write_text(path.name)
    Path('run/epoch_7.pth').unlink()
    checkpoint = dict(out_dir='store')
    with pytest.raises(FileExistsError, match='epoch_8.pth'):
        build(images, checkpoint, cfg=Config(dict())).train()
    Path('run/epoch_7.pth').write_text('epoch_7.pth')
    build(images, checkpoint, cfg=Config(dict(overwrite=True))).train()
    for path in moved:
        assert (path.parent / 'replaced_2' /
                path.name).read_text() == path.name
        assert not path.exists()
        assert not list((path.parent / 'replaced_1').iterdir())
    assert Path('store/run/epoch_1.pth').is_file()


@pytest.mark.parametrize('options, message', [
    (dict(resume=True, overwrite=True), 'expected one of --resume'),
    (dict(resume=True, load_from='other/epoch_1.pth'), 'would mix two runs'),
    (dict(overwrite=True, load_from='run/epoch_1.pth'), 'another folder'),
])
def test_two_runs_are_not_mixed(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    for name in 'run', 'other':
        (tmp_path / name).mkdir()
        torch.save({}, tmp_path / name / 'epoch_1.pth')
    images = save_images(tmp_path / 'images')[0].parent
    before = hashes(tmp_path)
    cfg = Config(dict(overwrite=options.get('overwrite', False)))
    options = {k: v for k, v in options.items() if k != 'overwrite'}
    runner = build(images, cfg=cfg, **options)
    with pytest.raises((FileExistsError, ValueError), match=message):
        runner.train()
    assert hashes(tmp_path) == before
    # The next model of this process writes to the same logger.
    MODELS.build(dict(type='LinearClsHead', num_classes=2,
                      in_channels=3)).init_weights()


@pytest.mark.parametrize(
    'name',
    ['iter_5.pth', 'best_x_epoch_1.pth', 'last_checkpoint', 'report.json'])
def test_results(tmp_path, name):
    check_run_folder(tmp_path / 'missing')
    (tmp_path / 'backbone.pth').touch()
    check_run_folder(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=name):
        check_run_folder(tmp_path)


def test_where_no_run_can_write(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    for name in 'file', 'file/run':
        with pytest.raises(NotADirectoryError, match='file is a file'):
            check_run_folder(tmp_path / name)
    # Root, who runs tests in containers, may write anywhere.
    monkeypatch.setattr('os.access', lambda path, mode: False)
    with pytest.raises(PermissionError, match=f'{tmp_path} is read-only'):
        check_run_folder(tmp_path / 'missing' / 'run')


def test_the_named_checkpoint_is_resumed(tmp_path):
    """Not the one that a copy of the folder wrote last, if it is whole."""
    for number in 10, 9:
        torch.save({}, tmp_path / f'epoch_{number}.pth')
    named = tmp_path / 'last_checkpoint'
    named.write_text('another_place/epoch_10.pth')
    found = find_latest_whole_checkpoint(str(tmp_path))
    assert Path(found) == tmp_path / 'epoch_10.pth'
    (tmp_path / 'epoch_10.pth').write_text('damaged')
    found = find_latest_whole_checkpoint(str(tmp_path))
    assert Path(found) == tmp_path / 'epoch_9.pth'
    named.write_text('another_place/epoch_11.pth')
    found = find_latest_whole_checkpoint(str(tmp_path))
    assert Path(found) == tmp_path / 'epoch_9.pth'
    (tmp_path / 'epoch_9.pth').write_text('damaged')
    with pytest.raises(ValueError, match='all 2 are damaged'):
        find_latest_whole_checkpoint(str(tmp_path))


def test_a_remote_checkpoint_is_resumed(tmp_path):
    assert find_latest_whole_checkpoint(str(tmp_path / 'no run')) is None
    assert find_latest_whole_checkpoint(str(tmp_path)) is None
    (tmp_path / 'last_checkpoint').write_text('s3://bucket/run/epoch_2.pth')
    found = find_latest_whole_checkpoint(str(tmp_path))
    assert found == 's3://bucket/run/epoch_2.pth'
