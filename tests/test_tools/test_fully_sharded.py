# Copyright (c) greenmim authors. All rights reserved.
"""Two processes over gloo, each of which has a shard of the model."""
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.micro import save_classes, scalars_of
from tests.processes import free_port, losses_of, run

ROOT = Path(__file__).parents[2]


def test_losses_are_those_of_one_process(make_config, environment, tmp_path):
    """Two processes; one resumes their checkpoint, and two resume its."""
    config = make_config({
        'optim_wrapper.optimizer':
        dict(_delete_=True, type='AdamW', lr=1e-3),
        'default_hooks.checkpoint.max_keep_ckpts':
        5,
        'custom_hooks': [
            dict(type='greenmim.RecordLosses'),
            dict(type='greenmim.NonFiniteHook')
        ]
    })
    reference = tmp_path / 'reference'
    run(
        f'python {ROOT}/tools/train.py {config} --work-dir {reference} '
        '--cfg-options train_cfg.max_epochs=3', environment, tmp_path)

    work_dir = tmp_path / 'sharded'
    two = (f'bash {ROOT}/tools/dist_train.sh {config} 2 --work-dir {work_dir} '
           '--resume --cfg-options train_dataloader.batch_size=2 '
           'model_wrapper_cfg.type=greenmim.FullyShardedModel '
           'train_cfg.max_epochs=')
    one = (f'python {ROOT}/tools/train.py {config} --work-dir {work_dir} '
           '--resume --cfg-options train_cfg.max_epochs=2')
    environment['PORT'] = free_port()
    run(f'{two}1', environment, tmp_path)
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=True)
    expected = torch.load(reference / 'epoch_1.pth', weights_only=True)
    for name, value in expected['state_dict'].items():
        assert type(value) is torch.Tensor
        torch.testing.assert_close(
            checkpoint['state_dict'][name], value, rtol=1e-3, atol=1e-5)
    for index, moments in expected['optimizer']['state'].items():
        for name, value in moments.items():
            found = checkpoint['optimizer']['state'][index][name]
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5)
    run(one, environment, tmp_path)
    environment['PORT'] = free_port()
    run(f'{two}3', environment, tmp_path)

    np.testing.assert_allclose(
        losses_of(work_dir), losses_of(reference), rtol=1e-4)


def test_hooks_measure_the_same(make_config, environment, tmp_path):
    """These hooks call parts of the model, of which each process has a shard.
    """
    save_classes(tmp_path / 'labelled', (100, 120), 10, spread=30)
    watching = dict(interval=2, num_images=4)
    config = make_config({
        'model.backbone.pad_small_map':
        True,
        'custom_hooks': [
            dict(
                type='greenmim.KNNHook',
                data_root=str(tmp_path / 'labelled'),
                interval=1,
                size=64,
                num_workers=0,
                k=3),
            dict(type='greenmim.LearningHook', **watching),
            dict(type='greenmim.ReconstructionHook', **watching),
            dict(type='greenmim.RecordLosses')
        ],
        'visualizer':
        dict(
            type='UniversalVisualizer',
            vis_backends=[dict(type='LocalVisBackend')])
    })
    one, two = tmp_path / 'one', tmp_path / 'two'
    run(f'python {ROOT}/tools/train.py {config} --work-dir {one}', environment,
        tmp_path)
    environment['PORT'] = free_port()
    run(
        f'bash {ROOT}/tools/dist_train.sh {config} 2 --work-dir {two} '
        '--cfg-options train_dataloader.batch_size=2 '
        'model_wrapper_cfg.type=greenmim.FullyShardedModel', environment,
        tmp_path)
    figures = []
    for work_dir in one, two:
        figures.append([{
            key: value
            for key, value in row.items() if '/' in key or key == 'step'
        } for row in scalars_of(work_dir)])
        assert len(list(work_dir.rglob('reconstruction_*.png'))) == 3
    assert len(figures[0]) == len(figures[1])
    for expected, found in zip(*figures):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    names = {name for row in figures[0] for name in row}
    assert {'knn/top1', 'learning/loss'} <= names
    np.testing.assert_allclose(losses_of(two), losses_of(one), rtol=1e-4)
