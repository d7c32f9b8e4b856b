# Copyright (c) greenmim authors. All rights reserved.
"""Two processes over gloo, each of which has a shard of the model."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.micro import save_classes, save_images, scalars_of
from tests.processes import cpu_environment, free_port, losses_of, run

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


# Nothing of the recipes is changed but their length and batch.
PRETRAINING = ('configs/quickstart/'
               'greenmim_swin-micro-w4_1xb32-coslr-600i_folder-128px.py')
FINE_TUNING = ('configs/benchmarks/classification/'
               'swin-micro-w4_1xb32-coslr-30e_folder-128px.py')
SHORT = [
    f'{part}_dataloader.{option}' for part in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


class Recipes:
    """Runs of recipes in a folder, each in two processes."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = cpu_environment()
        save_images(folder / 'images', 12, (140, 150), cells=6)
        for seed, part in enumerate(('train', 'val')):
            save_classes(folder / 'labelled' / part, (50, 120), 4, seed)

    def __call__(self, tool, words, data, work_dir, *options):
        self.environment['PORT'] = free_port()
        options = ' '.join([
            'model_wrapper_cfg.type=greenmim.FullyShardedModel',
            *(o for o in SHORT if data == 'labelled' or 'train_' in o),
            *options
        ])
        words = [
            f'{ROOT}/{word}' if word.startswith('configs/') else word
            for word in words
        ]
        return run(
            f'bash {ROOT}/tools/{tool} {" ".join(words)} --data {data} '
            f'--work-dir {work_dir} --cfg-options {options}', self.environment,
            self.folder)

    def pretrain(self, *words, iterations=4):
        return self('dist_train.sh', [PRETRAINING, '2', *words], 'images',
                    'pretrained', f'train_cfg.max_iters={iterations}',
                    'train_dataloader.batch_size=4',
                    'default_hooks.checkpoint.interval=2')

    def finetune(self, *words, epochs=1):
        return self(
            'dist_train.sh', [FINE_TUNING, '2', *words], 'labelled', 'tuned',
            f'train_cfg.max_epochs={epochs}', 'train_dataloader.batch_size=4',
            'default_hooks.checkpoint.interval=1',
            'model.backbone.init_cfg.checkpoint=pretrained/iter_4.pth')


@pytest.fixture(scope='module')
def recipes(tmp_path_factory):
    """A pre-training and a fine-tuning to their end, with all hooks."""
    recipes = Recipes(tmp_path_factory.mktemp('recipes'))
    recipes.printed = recipes.pretrain() + recipes.finetune()
    return recipes


def test_recipes_run_to_their_end(recipes):
    """`run` has checked the exit codes."""
    report = json.loads(
        (recipes.folder / 'pretrained' / 'report.json').read_text())
    assert report['iterations'] == 4 and report['last_loss'] > 0
    assert 'dense_hours' not in report  # of a backbone in one process
    assert (recipes.folder / 'tuned' / 'epoch_1.pth').is_file()
    scores = [
        row for row in scalars_of(recipes.folder / 'tuned')
        if 'accuracy/top1' in row
    ]
    assert len(scores) == 1
    assert 'Traceback' not in recipes.printed


@pytest.mark.slow
def test_recipes_resume_and_are_tested(recipes):
    recipes.pretrain('--resume', iterations=6)
    recipes.finetune('--resume', epochs=2)
    for name in 'pretrained/iter_6.pth', 'tuned/epoch_2.pth':
        assert (recipes.folder / name).is_file()
    printed = recipes('dist_test.sh',
                      [FINE_TUNING, str(recipes.folder / 'tuned/epoch_2.pth'),
                       '2'], 'labelled', 'tested')  # yapf: disable
    assert 'accuracy/top1' in printed
