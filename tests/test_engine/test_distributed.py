# Copyright (c) greenmim authors. All rights reserved.
"""Four processes over gloo: equal to one, and stopped when one is lost."""
import json
import os
import re
import signal
import subprocess
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from greenmim.datasets.seeding import mix_seeds
from tests.conftest import CHECKOUT, LAUNCH
from tests.micro import save_classes, save_images, scalars_of
from tests.processes import cpu_environment, free_port, processes_with

PROCESSES = 4
SEED = 0


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight images to train on, and labelled ones of two colours."""
    path = tmp_path_factory.mktemp('distributed')
    save_images(path / 'images', 8, cells=5)
    save_classes(path / 'labelled', (100, 120), 15, spread=30)
    return path


def write_config(folder, name, pipeline, hooks, options):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LAUNCH)
        cfg = Config.fromfile(LAUNCH / 'micro_config.py')
    cfg.experiment_name = uuid.uuid4().hex
    loader = cfg.train_dataloader
    loader.dataset.update(
        data_root=str(folder / 'images'),
        pipeline=[
            dict(type='greenmim.LoadImage'), *pipeline,
            dict(type='PackInputs', algorithm_keys=['mask'])
        ])
    loader.batch_size = 8 // PROCESSES
    cfg.visualizer = dict(
        type='UniversalVisualizer',
        vis_backends=[dict(type='LocalVisBackend')])
    cfg.custom_hooks = [
        dict(type=f'greenmim.{h}') if isinstance(h, str) else dict(h)
        for h in hooks
    ]
    cfg.randomness = dict(seed=SEED)
    cfg.merge_from_dict(options)
    path = folder / f'{name}.py'
    cfg.dump(path)
    return path


def start(*words, **variables):
    return subprocess.Popen(
        list(map(str, words)),
        env=cpu_environment(LAUNCH, PORT=free_port(), **variables),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True)


def finish(process):
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 0, log[-9000:]
    return log


@pytest.fixture(scope='module')
def runs(folder):
    """Work folders of two steps on all images, by four processes and by one.

    Every image has a mask of its own, so that the four batches of two and the
    one of eight are the same work.
    """
    watching = dict(interval=1, num_images=4, batch_size=3)
    config = write_config(
        folder, 'equal', [dict(type='greenmim.MaskByName')], [
            'RecordWeights',
            dict(type='greenmim.LearningHook', **watching),
            dict(type='greenmim.ReconstructionHook', **watching),
            dict(
                type='greenmim.KNNHook',
                data_root=str(folder / 'labelled'),
                interval=1,
                size=64,
                batch_size=2,
                num_workers=0,
                k=3)
        ], {
            'optim_wrapper.optimizer.lr': 0.1,
            'model.backbone.pad_small_map': True
        })
    four, one = folder / 'four', folder / 'one'
    finish(
        start('bash', 'tools/dist_train.sh', config, PROCESSES, '--work-dir',
              four))
    finish(
        start('python', 'tools/train.py', config, '--work-dir', one,
              '--cfg-options', 'train_dataloader.batch_size=8'))
    return four, one


def test_gradient(runs):
    """After the first step the momentum of SGD is the gradient."""
    four, one = (
        torch.load(run / 'epoch_1.pth')['optimizer']['state'] for run in runs)
    assert len(four) == len(one) > 50
    for index, state in one.items():
        expected = state['momentum_buffer']
        assert expected.abs().max() > 0
        error = (four[index]['momentum_buffer'] - expected).abs().max()
        assert error <= 1e-5 * expected.abs().max()


def test_weights(runs):
    """All processes end with bit-identical weights."""
    first, *others = (
        torch.load(runs[0] / f'weights_{rank}.pth')
        for rank in range(PROCESSES))
    (single, start) = (
        torch.load(runs[1] / name)
        for name in ('weights_0.pth', 'epoch_1.pth'))
    for name, tensor in first.items():
        assert all(torch.equal(tensor, other[name]) for other in others)
        torch.testing.assert_close(tensor, single[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(tensor, start['state_dict'][name])
               for name, tensor in first.items())


def test_hooks_measure_the_same_once(runs):
    lines = [[{
        key: value
        for key, value in row.items() if '/' in key or key == 'step'
    } for row in scalars_of(run)] for run in runs]
    four, one = lines
    assert len(four) == len(one)
    for found, expected in zip(four, one):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    names = {name for row in one for name in row}
    assert {'knn/top1', 'learning/loss', 'learning/rank'} <= names


def test_files_are_written_once(runs):
    """The same files, but for what the tests write of each process."""
    four, one = (
        sorted(
            re.sub(r'\d{8}_\d{6}', 'TIME', str(file.relative_to(run)))
            for file in run.rglob('*')
            if not re.match(r'weights_[123]\.pth', file.name)) for run in runs)
    assert four == one
    assert sum('reconstruction_' in name for name in one) == 3
    assert sum('best_training' in name for name in one) == 1
    pictures = [
        np.asarray(Image.open(next(
            run.rglob('reconstruction_2.png')))).astype(int) for run in runs
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    logs = [next(run.rglob('*.log')).read_text() for run in runs]
    for line in 'k-NN after', 'Learning after':
        assert logs[0].count(line) == logs[1].count(line) == 3


@pytest.fixture(scope='module')
def lost(folder):
    """One of four is killed in the fourth iteration.

    The work folder, the log, and the seconds until all had ended.
    """
    hooks = [
        'PlanAheadHook', 'SeedStepHook', 'PreemptionHook', 'RecordBatches',
        'Hold'
    ]
    config = write_config(
        folder, 'lost', [dict(type='RandomFlip', prob=0.5)], hooks, {
            'train_dataloader.sampler.type':
            'greenmim.SeededSampler',
            'train_cfg':
            dict(
                _delete_=True,
                type='greenmim.ResumableEpochLoop',
                max_epochs=6),
            'model.mask_ratio':
            0.5,
            'model.backbone.drop_path_rate':
            0.3
        })
    work_dir = folder / 'lost'
    work_dir.mkdir()
    (work_dir / 'hold_4').touch()
    mark = f'lost_{uuid.uuid4().hex}'
    process = start(
        'bash',
        'tools/dist_train.sh',
        config,
        PROCESSES,
        '--work-dir',
        work_dir,
        RUN=mark)
    deadline = time.time() + 120
    while not all(len(rows) == 4 for rows in batches(work_dir)):
        assert process.poll() is None and time.time() < deadline, (
            process.communicate()[0][-5000:])
        time.sleep(0.05)
    third, = set(processes_with('RANK=2')).intersection(
        processes_with(f'RUN={mark}'))
    os.kill(third, signal.SIGKILL)
    begin = time.time()
    log = process.communicate(timeout=120)[0]
    while processes_with(f'RUN={mark}') and time.time() < begin + 120:
        time.sleep(0.1)
    seconds = time.time() - begin
    assert process.returncode not in (0, None)
    return work_dir, log, seconds


def test_the_others_stop_with_a_message(lost):
    _, log, seconds = lost
    assert seconds < 60
    assert re.search(r'rank\s*: 2 ', log), log[-5000:]
    assert 'Signal 9 (SIGKILL)' in log


def test_every_process_has_images_of_its_own(lost):
    """An epoch, here one iteration, covers all images once."""
    for rows in zip(*batches(lost[0])):
        images = [name for row in rows for name in row['images']]
        assert sorted(images) == [f'{i}.png' for i in range(8)]


def test_every_process_draws_by_seed(lost):
    """As docs/clusters.md says."""
    cfg = Config.fromfile(lost[0] / 'lost.py')
    planner = MODELS.build(cfg.model).mask_planner
    masks = []
    for rank, rows in enumerate(batches(lost[0])):
        for row in rows:
            # Drop path draws from the seed of the step.
            assert row['step_seed'] == mix_seeds(SEED, row['iteration'], rank)
            # A sample's seed, and from that the seed of its mask
            seeds = [
                mix_seeds(mix_seeds(SEED, row['epoch'], int(Path(name).stem)))
                for name in row['images']
            ]
            assert row['mask_seeds'] == seeds
            plan = planner(
                2, (64, 64), generator=torch.Generator().manual_seed(seeds[0]))
            assert row['visible'] == plan.layout.visible.int().tolist()
            masks.append(str(row['visible']))
    assert len(masks) == 16 and len(set(masks)) > 3


def batches(work_dir):
    """What each process recorded in every iteration."""
    return [
        [json.loads(line)
         for line in file.read_text().splitlines()] if file.exists() else []
        for file in (work_dir / f'batches_{rank}.txt'
                     for rank in range(PROCESSES))
    ]


def test_another_number_of_iterations_is_refused(lost):
    """One process instead of four has four times as many, from one epoch."""
    work_dir = lost[0]
    assert (work_dir / 'epoch_2.pth').exists()
    process = start('python', 'tools/train.py', work_dir / 'lost.py',
                    '--work-dir', work_dir, '--resume')
    log = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert 'expected 1 iterations an epoch' in log, log[-3000:]
