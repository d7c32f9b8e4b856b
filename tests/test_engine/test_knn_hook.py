# Copyright (c) greenmim authors. All rights reserved.
"""The hook in runs of MMEngine's Runner."""
import json
import uuid

import pytest
import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from greenmim.engine import KNNHook
from greenmim.evaluation import knn_accuracy
from tests.micro import micro_config, save_classes


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    """Ten images of each of two colours."""
    root = tmp_path_factory.mktemp('labelled')
    return save_classes(root, (90, 150), 10, spread=30)


def run(work_dir, data_root, hooks=(), resume=False, **train_cfg):
    by_epoch = train_cfg['by_epoch']
    runner = Runner(
        model=micro_config(
            data_preprocessor=dict(
                type='SelfSupDataPreprocessor', mean=[120.] * 3, std=[60.] *
                3)),
        work_dir=str(work_dir),
        experiment_name=uuid.uuid4().hex,
        default_scope='mmpretrain',
        train_dataloader=dict(
            batch_size=5,
            num_workers=0,
            dataset=dict(
                type='greenmim.ImageFolder',
                data_root=str(data_root),
                pipeline=[
                    dict(type='greenmim.LoadImage'),
                    dict(type='PackInputs')
                ]),
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate')),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(
            checkpoint=dict(
                type='greenmim.SafeCheckpointHook',
                interval=1,
                by_epoch=by_epoch)),
        custom_hooks=list(hooks),
        resume=resume,
        randomness=dict(seed=0),
        log_level='ERROR')
    runner.train()
    return runner


def hook_for(data_root, **options):
    return dict(
        dict(
            type='greenmim.KNNHook',
            data_root=str(data_root),
            size=128,
            batch_size=3,
            num_workers=0,
            k=5), **options)


def figures(work_dir):
    (file, ) = work_dir.rglob('scalars.json')
    lines = map(json.loads, file.read_text().splitlines())
    return {
        line['step']: line['knn/top1']
        for line in lines if 'knn/top1' in line
    }


EPOCHS = dict(by_epoch=True, max_epochs=5)


@pytest.mark.parametrize('by_epoch, length, steps', [
    (True, dict(max_epochs=5), [0, 2, 4, 5]),
    (True, dict(max_epochs=4), [0, 2, 4]),
    (False, dict(max_iters=5), [0, 2, 4, 5]),
])  # yapf: disable
def test_evaluates_first_in_intervals_and_last(tmp_path, labelled, by_epoch,
                                               length, steps):
    hook = hook_for(labelled, interval=2, by_epoch=by_epoch)
    runner = run(tmp_path, labelled, [hook], by_epoch=by_epoch, **length)
    written = figures(tmp_path)
    assert list(written) == steps

    # The last figure is that of the model as it is now.
    (hook, ) = [hook for hook in runner.hooks if isinstance(hook, KNNHook)]
    assert (len(hook.bank.dataset), len(hook.queries.dataset)) == (16, 4)
    assert not is_model_wrapper(runner.model)
    accuracy = knn_accuracy(runner.model, hook.bank, hook.queries, k=5)
    assert written[steps[-1]] == pytest.approx(accuracy['top1'])


def test_training_goes_on_as_without_the_hook(tmp_path, labelled):
    weights = []
    for name, hooks in ('with', [hook_for(labelled,
                                          interval=1)]), ('without', []):
        runner = run(tmp_path / name, labelled, hooks, **EPOCHS)
        weights.append(runner.model.state_dict())
        assert runner.model.training
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_resumed_run_starts_from_its_epoch(tmp_path, labelled):
    hook = hook_for(labelled, interval=3)
    run(tmp_path, labelled, by_epoch=True, max_epochs=2)
    run(tmp_path, labelled, [hook], True, **EPOCHS)
    file = max(tmp_path.rglob('scalars.json'))
    lines = map(json.loads, file.read_text().splitlines())
    steps = [line['step'] for line in lines if 'knn/top1' in line]
    assert steps == [2, 3, 5]


def test_bad_interval_is_refused():
    with pytest.raises(ValueError, match='interval of 1 or more, got 0'):
        KNNHook('folder', interval=0)
