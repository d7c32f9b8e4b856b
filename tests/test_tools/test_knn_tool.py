# Copyright (c) greenmim authors. All rights reserved.
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from skimage import data

from greenmim.evaluation import knn_accuracy, labelled_folder
from tests.test_evaluation.test_frozen_features import load

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'benchmarks' / 'knn.py'
CLASSIFIER = ROOT / 'tests' / 'data' / 'launch' / 'micro_classifier.py'


@pytest.fixture(scope='session')
def labelled(tmp_path_factory) -> Path:
    """Ten crops of each of two photographs."""
    root = tmp_path_factory.mktemp('labelled')
    for name in 'astronaut', 'coffee':
        photograph = Image.fromarray(getattr(data, name)())
        (root / name).mkdir()
        for i in range(10):
            crop = photograph.crop((30 * i, 30 * i, 30 * i + 90, 30 * i + 80))
            crop.save(root / name / f'{i}.png')
    return root


@pytest.fixture
def pre_trained(make_config, tmp_path):
    """The micro config and a checkpoint with random weights."""
    config = make_config()
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    checkpoint = tmp_path / 'epoch_2.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return config, checkpoint, model


def test_accuracy_is_that_of_the_loaded_backbone(run_tool, pre_trained,
                                                 labelled, tmp_path, capsys):
    config, checkpoint, model = pre_trained
    options = ('--data', labelled, '--device', 'cpu', '--num-workers', 0,
               '--size', 128)
    run_tool(TOOL, config, checkpoint, *options, '--k', 3, '--temperature',
             0.1, '--batch-size', 7)
    printed = capsys.readouterr().out
    total = len(model.backbone.state_dict())
    assert f'backbone {total} of {total} tensors' in printed
    expected = knn_accuracy(model,
                            *map(load, labelled_folder(str(labelled), 128)), 3,
                            0.1)
    results = mmengine.load(tmp_path / 'knn.json')
    assert {name: results[name] for name in expected} == expected
    assert f'top1 {expected["top1"]:.2f} %' in printed
    assert {
        name: results[name]
        for name in ('k', 'temperature', 'size', 'classes', 'labelled',
                     'classified', 'data')
    } == dict(
        k=3,
        temperature=0.1,
        size=128,
        classes=2,
        labelled=16,
        classified=4,
        data=str(labelled))

    # A file of the backbone alone, with the config of a classifier.
    torch.save(model.backbone.state_dict(), tmp_path / 'backbone.pth')
    classifier = Config.fromfile(CLASSIFIER)
    classifier.model.backbone.window_size = 4
    classifier.data_preprocessor = dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True)
    classifier.dump(tmp_path / 'classifier.py')
    run_tool(TOOL, tmp_path / 'classifier.py', tmp_path / 'backbone.pth',
             *options, '--k', 3, '--temperature', 0.1, '--out', 'D/out.json')
    again = mmengine.load(tmp_path / 'D' / 'out.json')
    assert again['top1'] == expected['top1']


@pytest.mark.parametrize('damage, message', [
    (lambda weights: weights.pop('backbone.norm3.bias'), 'norm3.bias'),
    (lambda weights: weights.update({'backbone.extra': torch.ones(1)}),
     'extra'),
    (lambda weights: weights.update(
        {'backbone.norm3.bias': torch.ones(7)}), 'norm3.bias'),
])  # yapf: disable
def test_a_damaged_checkpoint_is_refused(run_tool, pre_trained, labelled,
                                         damage, message):
    config, checkpoint, model = pre_trained
    weights = model.state_dict()
    damage(weights)
    torch.save(dict(state_dict=weights), checkpoint)
    with pytest.raises(SystemExit, match=message):
        run_tool(TOOL, config, checkpoint, '--data', labelled)


def test_bad_input_is_refused(run_tool, pre_trained, labelled):
    config, checkpoint, _ = pre_trained
    options = ('--device', 'cpu', '--num-workers', 0, '--size', 128)
    with pytest.raises(SystemExit, match='no folder'):
        run_tool(TOOL, config, checkpoint, '--data', 'nowhere', *options)
    with pytest.raises(SystemExit, match='k from 1 to the 16'):
        run_tool(TOOL, config, checkpoint, '--data', labelled, '--k', 17,
                 *options)
    with pytest.raises(SystemExit, match='no file'):
        run_tool(TOOL, config, 'nothing.pth', '--data', labelled)
