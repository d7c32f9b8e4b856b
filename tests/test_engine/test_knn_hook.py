# Copyright (c) greenmim authors. All rights reserved.
"""The hook in runs of MMEngine's Runner."""
import pytest
import torch
from mmengine.model import is_model_wrapper

from greenmim.engine import KNNHook
from greenmim.evaluation import knn_accuracy
from tests.micro import micro_runner, save_classes, scalars_of


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    """Ten images of each of two colours."""
    root = tmp_path_factory.mktemp('labelled')
    return save_classes(root, (90, 150), 10, spread=30)


def run(work_dir, data_root, hooks=(), resume=False, **train_cfg):
    pipeline = [
        dict(type='greenmim.LoadImage'),
        dict(type='RandomResizedCrop', scale=64),
        dict(type='PackInputs')
    ]
    runner = micro_runner(
        work_dir,
        dict(
            batch_size=5,
            dataset=dict(
                type='greenmim.ImageFolder',
                data_root=str(data_root),
                pipeline=pipeline)),
        hooks,
        checkpoint=dict(interval=1, by_epoch=train_cfg['by_epoch']),
        train_cfg=train_cfg,
        resume=resume)
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
    return {
        row['step']: row['knn/top1']
        for row in scalars_of(work_dir) if 'knn/top1' in row
    }


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
    accuracy = knn_accuracy(
        runner.model, hook.bank, hook.queries, k=5, linear=True)
    assert written[steps[-1]] == pytest.approx(accuracy['top1'])
    probed = [row['linear/top1'] for row in scalars_of(tmp_path)
              if 'linear/top1' in row]  # yapf: disable
    assert len(probed) == len(steps)
    assert probed[-1] == pytest.approx(accuracy['linear'])


@pytest.mark.parametrize('num_workers', [0, 1])
def test_training_continues_as_without_the_hook(tmp_path, labelled,
                                                num_workers):
    """Masks and crops of the main process are the same."""
    weights = []
    hook = hook_for(labelled, interval=1, num_workers=num_workers)
    for name, hooks in ('with', [hook]), ('without', []):
        runner = run(
            tmp_path / name, labelled, hooks, by_epoch=True, max_epochs=3)
        weights.append(runner.model.state_dict())
        assert runner.model.training
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_resumed_run_starts_from_its_epoch(tmp_path, labelled):
    hook = hook_for(labelled, interval=3)
    run(tmp_path, labelled, by_epoch=True, max_epochs=2)
    run(tmp_path, labelled, [hook], True, by_epoch=True, max_epochs=5)
    assert list(figures(tmp_path)) == [2, 3, 5]


def test_bad_interval_is_refused():
    with pytest.raises(ValueError, match='interval of 1 or more, got 0'):
        KNNHook('folder', interval=0)
