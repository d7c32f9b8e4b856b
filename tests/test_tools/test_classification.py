# Copyright (c) greenmim authors. All rights reserved.
"""The recipes of classification on a small folder, by options alone."""
import re
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from greenmim.weights import read_state_dict

ROOT = Path(__file__).parents[2]
TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'
FOLDER = ROOT / 'configs' / 'benchmarks' / 'classification'
# A smaller model than the recipe's.
MICRO = [
    f'model.backbone.arch.{option}'
    for option in ('_delete_=True', 'embed_dims=16', 'depths=1,1,2,1',
                   'num_heads=1,2,4,8')
] + ['model.head.in_channels=128']


def options_for(labelled, batch_size, epochs):
    """The options for another folder of six classes and a short run."""
    options = [
        f'{part}_dataloader.{option}' for part in ('train', 'val', 'test')
        for option in (f'dataset.data_root={labelled}',
                       f'batch_size={batch_size}', 'num_workers=0',
                       'persistent_workers=False')
    ]
    return options + [
        'model.head.num_classes=6', 'data_preprocessor.num_classes=6',
        f'train_cfg.max_epochs={epochs}', 'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1'
    ]


@pytest.mark.parametrize(
    'recipe',
    # Recipes of other methods are tested in tests/test_benchmark_configs.py.
    [
        path for path in sorted(FOLDER.glob('*.py'))
        if not re.search('-(fastmim|simmim)-', path.stem)
    ],
    ids=lambda path: path.stem)
def test_recipe_starts_from_every_tensor(run_tool, recipe, labelled, tmp_path):
    """Trained at rate zero, it still has the weights it started from."""
    cfg = Config.fromfile(recipe)
    options = options_for(labelled, 4, 2) + MICRO + [
        'optim_wrapper.optimizer.lr=0.', 'param_scheduler.1.eta_min=0.',
        'train_dataloader.dataset.indices=4',
        'val_dataloader.dataset.indices=4',
        f'model.backbone.init_cfg.checkpoint={tmp_path / "pre.pth"}'
    ]
    if 'linear' in recipe.stem:
        options.append('model.neck.1.input_features=128')
    cfg.model.backbone.arch = dict(
        embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    init_default_scope('mmpretrain')
    backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=None))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    weights = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    torch.save(dict(state_dict=weights), tmp_path / 'pre.pth')

    run_tool(TRAIN, recipe, '--work-dir', 'D', '--cfg-options', *options)
    log = next((tmp_path / 'D').glob('*/*.log')).read_text()
    assert 'missing keys' not in log and 'unexpected key' not in log
    trained = read_state_dict(str(tmp_path / 'D' / 'epoch_2.pth'))
    for name, tensor in weights.items():
        assert torch.equal(tensor, trained[name]), name

    run_tool(TEST, recipe, 'D/epoch_2.pth', '--work-dir', 'D', '--out',
             'metrics.json', '--out-item', 'metrics', '--cfg-options',
             *options)
    metrics = mmengine.load(tmp_path / 'metrics.json')
    assert set(metrics) == {'accuracy/top1', 'accuracy/top5'}
    assert 0 <= metrics['accuracy/top1'] <= metrics['accuracy/top5'] <= 100


SMALL = [
    'model.backbone.window_size=2', 'model.backbone.img_size=64',
    'train_dataloader.dataset.pipeline.1.scale=64',
    'val_dataloader.dataset.pipeline.1.scale=73',
    'val_dataloader.dataset.pipeline.2.crop_size=64',
    'test_dataloader.dataset.pipeline.1.scale=73',
    'test_dataloader.dataset.pipeline.2.crop_size=64'
]


@pytest.mark.parametrize('name, options', [
    ('swin-tiny-w7_8xb96-amp-coslr-100e_in1k',
     ['optim_wrapper.optimizer.lr=4e-3', 'train_cfg.val_interval=20']),
    ('swin-base-w7_8xb256-amp-linear-coslr-90e_in1k',
     ['optim_wrapper.optimizer.lr=20.', 'train_cfg.val_interval=20',
      'model.neck.1.input_features=128']),
])  # yapf: disable
def test_it_learns(run_tool, name, options, labelled, tmp_path):
    recipe = FOLDER / f'{name}.py'
    run_tool(TRAIN, recipe, '--work-dir', 'D', '--cfg-options',
             *options_for(labelled, 12, 20), *MICRO, *SMALL, *options,
             'model.backbone.init_cfg=None',
             'default_hooks.checkpoint.interval=20')
    run_tool(TEST, recipe, 'D/epoch_20.pth', '--work-dir', 'D', '--out',
             'metrics.json', '--out-item', 'metrics', '--cfg-options',
             *options_for(labelled, 12, 20), *MICRO, *SMALL, *options)
    metrics = mmengine.load(tmp_path / 'metrics.json')
    assert metrics['accuracy/top1'] >= 50, 'chance is 17'


def test_another_number_of_classes_is_refused(run_tool, labelled):
    recipe = FOLDER / 'swin-tiny-w7_8xb96-amp-coslr-100e_in1k.py'
    options = options_for(labelled, 4, 2) + MICRO + SMALL
    options += ['model.backbone.init_cfg=None', 'model.head.num_classes=5']
    message = ('the 6 classes of .*train, got model.head.num_classes=5; add '
               'to --cfg-options: model.head.num_classes=6 ')
    with pytest.raises(SystemExit, match=message):
        run_tool(TRAIN, recipe, '--work-dir', 'D', '--cfg-options', *options)

    options[-1] = 'train_cfg.val_interval=9'
    run_tool(TRAIN, recipe, '--work-dir', 'D', '--cfg-options', *options,
             'default_hooks.checkpoint.interval=1', 'train_cfg.max_epochs=2')
    options.append('data_preprocessor.num_classes=1000')
    with pytest.raises(SystemExit, match='val, got data_preprocessor.num_cla'):
        run_tool(TEST, recipe, 'D/epoch_2.pth', '--cfg-options', *options)
