# Copyright (c) greenmim authors. All rights reserved.
import subprocess
from fractions import Fraction
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from tests.processes import free_port

ROOT = Path(__file__).parents[2]
TEST = ROOT / 'tools' / 'test.py'
CLASSIFIER = ROOT / 'tests' / 'data' / 'launch' / 'micro_classifier.py'


@pytest.fixture
def classifier(images, tmp_path):
    """A config and a checkpoint of a classifier with random weights."""
    root = tmp_path / 'images'
    for i, path in enumerate(sorted(images.rglob('*.png'))):
        folder = root / 'ab'[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(folder / path.name)
    cfg = Config.fromfile(CLASSIFIER)
    cfg.test_dataloader.dataset.data_root = str(root)
    cfg.experiment_name = tmp_path.name
    cfg.dump(tmp_path / 'config.py')
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.nn.init.normal_(model.head.fc.weight)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    return tmp_path / 'config.py', tmp_path / 'model.pth'


def test_outputs(run_tool, classifier, tmp_path):
    run_tool(TEST, *classifier, '--out', 'predictions.pkl')
    results = mmengine.load(tmp_path / 'predictions.pkl')
    right = [int(r['pred_label'] == r['gt_label']) for r in results]
    assert len(right) == 8
    assert (tmp_path / 'work_dirs' / 'config').is_dir()

    run_tool(TEST, *classifier, '--work-dir', 'D', '--out', 'metrics.json',
             '--out-item', 'metrics', '--no-pin-memory', '--show-dir',
             tmp_path / 'pictures', '--interval', 2)
    metrics = mmengine.load(tmp_path / 'metrics.json')
    assert metrics == {'accuracy/top1': 100 * np.mean(right)}
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == 4


def test_tta_is_the_mean_over_mirror_images(run_tool, classifier, tmp_path):
    config, checkpoint = classifier
    mirrored = Config.fromfile(config)
    mirrored.test_dataloader.dataset.pipeline.insert(
        1, dict(type='RandomFlip', prob=1.))
    mirrored.dump(tmp_path / 'mirrored.py')

    scores = []
    for name, *options in (config, ), (tmp_path / 'mirrored.py', ), (config,
                                                                     '--tta'):
        run_tool(TEST, name, checkpoint, '--out', 'out.pkl', *options)
        results = mmengine.load(tmp_path / 'out.pkl')
        scores.append(torch.stack([r['pred_score'] for r in results]))
    plain, mirrored, tta = scores
    assert not torch.allclose(plain, mirrored, atol=1e-3)
    torch.testing.assert_close(tta, (plain + mirrored) / 2)


def test_amp(run_tool, classifier, tmp_path, monkeypatch):
    entered = []
    autocast = torch.autocast.__enter__
    monkeypatch.setattr(
        torch.autocast, '__enter__',
        lambda self: entered.append(self._enabled) or autocast(self))
    run_tool(TEST, *classifier)
    assert not any(entered)
    run_tool(TEST, *classifier, '--amp')
    assert any(entered)


def test_unsafe_checkpoint(run_tool, classifier, tmp_path):
    config, checkpoint = classifier
    weights = torch.load(checkpoint, weights_only=True)
    torch.save(dict(weights, extra=Fraction(1, 2)), checkpoint)
    with pytest.raises(SystemExit, match='--trust-checkpoint'):
        run_tool(TEST, config, checkpoint)
    run_tool(TEST, config, checkpoint, '--trust-checkpoint', '--out', 'a.pkl')
    assert (tmp_path / 'a.pkl').exists()


def test_wrong_arguments(run_tool, classifier, make_config, capsys):
    with pytest.raises(SystemExit):
        run_tool(TEST, *classifier, '--out-item', 'metrics')
    assert '--out-item expects --out' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='has nothing to test'):
        run_tool(TEST, make_config(), classifier[1])


def test_two_processes(classifier, environment, tmp_path):
    """Without a GPU, tools/dist_test.sh sets up gloo; each image counts once.
    """
    line = ['bash', f'{ROOT}/tools/dist_test.sh', *classifier, '2']
    subprocess.run([*line, '--out', 'out.pkl'],
                   env=dict(environment, PORT=free_port()),
                   cwd=tmp_path,
                   check=True)
    results = mmengine.load(tmp_path / 'out.pkl')
    assert sorted(r['sample_idx'] for r in results) == list(range(8))
