# Copyright (c) greenmim authors. All rights reserved.
"""One folder of labelled images, with broken files, in all tools."""
import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from greenmim.benchmarking.comparison import runs
from greenmim.datasets.labelled_folder import read_classes
from greenmim.engine.use_data import use_data
from tests.conftest import CHECKOUT
from tests.micro import save_classes
from tests.test_tools.test_comparisons import CONFIGS, OPTIONS, TOOLS

FINE_TUNING = CONFIGS / 'swin-micro-p2-w4_1xb64-coslr-300i_folder-32px.py'
PRE_TRAINING = (
    CONFIGS / 'greenmim_swin-micro-p2-w4_1xb64-coslr-1200i_folder-32px.py')
TRAIN, TEST = CHECKOUT / 'tools' / 'train.py', CHECKOUT / 'tools' / 'test.py'
NAMES = ['a b', 'x,y', 'ü 中']
# By their sorted paths, the first is held out and the others are trained on.
BROKEN = ['4 truncated.jpg', '5 empty.jpg', '6 text.jpg']


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Ten images of each of three classes, in class folders alone."""
    root = tmp_path_factory.mktemp('my data, ü')
    save_classes(
        root, [(200, 50, 50), (50, 200, 50), (50, 50, 200)],
        10,
        size=(40, 36),
        spread=30)
    for i, name in enumerate(NAMES):
        (root / f'class{i}').rename(root / name)
    whole = (root / NAMES[0] / '0.png').read_bytes()
    truncated, empty, text = (root / NAMES[2] / name for name in BROKEN)
    truncated.write_bytes(whole[:len(whole) // 2])
    empty.touch()
    text.write_text('no image')
    return root


def options_of(options: dict) -> list:
    return [
        f'{key}={value}'.replace(' ', '') for key, value in options.items()
    ]


def listed(text: str) -> list:
    """The broken files that a log names as unreadable."""
    return [
        name for name in BROKEN
        if any('cannot read the image' in line and name in line
               for line in text.splitlines())
    ]


def test_they_run_and_list_broken_files(run_tool, folder, tmp_path, capsys,
                                        monkeypatch):
    # Pre-training, with k-NN in its log.
    pre_training = {
        **OPTIONS['pretrain_options'], 'train_cfg.max_iters':
        9,
        'default_hooks.learning':
        None,
        'default_hooks.run_report':
        None,
        'default_hooks.knn':
        dict(
            type='greenmim.KNNHook',
            data_root=str(folder),
            size=32,
            by_epoch=False,
            interval=9,
            num_workers=0)
    }
    config = tmp_path / 'pre_training.py'
    cfg = Config.fromfile(PRE_TRAINING)
    cfg.merge_from_dict(pre_training)
    cfg.dump(config)
    # Formatting the logged configs takes longer than all else.
    monkeypatch.setattr(Config, 'pretty_text', property(repr))
    monkeypatch.setattr(runs, 'WARMUP', 1)
    monkeypatch.setattr(runs, 'TIMED', 1)

    def run(*arguments) -> str:
        """What a tool prints in a process of its own."""
        # A logger prints each warning once.
        MMLogger._instance_dict.clear()
        run_tool(*arguments)
        return capsys.readouterr().out

    printed = run(TRAIN, config, '--data', folder, '--work-dir', 'P')
    (log, ) = (tmp_path / 'P').glob('*/*.log')
    assert 'k-NN after 9 iterations: knn/top1' in log.read_text('utf-8')
    assert '33 images' in printed
    assert listed(printed) == BROKEN
    assert 'Left out 2 of 27 images' in printed
    assert 'Left out 1 of 6 images' in printed
    skipped = next((tmp_path / 'P').glob('*/skipped_images.txt')).read_text()
    assert listed(skipped) == BROKEN

    # Its weights, classified by k-NN.
    printed = run(TOOLS / 'knn.py', config, 'P/iter_9.pth', '--data', folder,
                  '--k', 3, '--size', 32, '--num-workers', 0, '--device',
                  'cpu')
    assert listed(printed) == BROKEN
    results = json.loads((tmp_path / 'knn.json').read_text())
    assert [results[name]
            for name in ('classes', 'labelled', 'classified')] == [3, 25, 5]
    assert results['left_out'] == 3

    # Fine-tuning, which learns three classes, and test.
    options = options_of({
        **OPTIONS['finetune_options'],
        'train_cfg.max_iters': 9,
        'default_hooks.checkpoint.interval': 9,
    })
    printed = run(TRAIN, FINE_TUNING, '--data', folder, '--work-dir', 'F',
                  '--cfg-options', *options)
    assert listed(printed) == BROKEN[1:]
    assert '2 unreadable images were skipped' in printed
    printed = run(TEST, FINE_TUNING, 'F/iter_9.pth', '--data', folder,
                  '--work-dir', 'F', '--out', 'predictions.pkl',
                  '--cfg-options', *options)
    assert listed(printed) == BROKEN[:1]
    assert 'Left out 1 of 6 images' in printed and '[5/5]' not in printed

    # Comparison with scratch
    pretrain, finetune = (
        options_of(OPTIONS[f'{name}_options'])
        for name in ('pretrain', 'finetune'))
    printed = run(TOOLS / 'compare_with_scratch.py', '--data', folder,
                  '--work-dir', 'C', '--budget', .05, '--seeds', 0,
                  '--pretrain', f'greenmim={PRE_TRAINING}',
                  '--pretrain-options', *pretrain, '--finetune-options',
                  *finetune)
    assert listed(printed) == BROKEN
    report = json.loads((tmp_path / 'C' / 'comparison.json').read_text())
    assert {one['method']
            for one in report['results']
            } == {'scratch', 'scratch, longer', 'greenmim'}
    labels = (tmp_path / 'C' / 'labels' / '0.txt').read_text().splitlines()
    assert len(labels) == 25


def test_use_data(folder, tmp_path):
    """It sets all that depends on the images, and nothing else."""
    path = (
        CHECKOUT / 'configs' / 'benchmarks' / 'classification' /
        'swin-micro-w4_1xb32-coslr-30e_folder-128px.py')
    cfg, before = Config.fromfile(path), Config.fromfile(path)
    use_data(cfg, str(folder))
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    for name, split in ('train', 'train'), ('val', 'val'), ('test', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        assert dict(dataset) == dict(
            type='greenmim.LabelledFolder',
            data_root=str(folder),
            split=split,
            pipeline=before[f'{name}_dataloader'].dataset.pipeline)
        cfg[f'{name}_dataloader'].dataset = before[
            f'{name}_dataloader'].dataset
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1, )
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 1000
    cfg.val_evaluator.topk = cfg.test_evaluator.topk = (1, 5)
    assert cfg.to_dict() == before.to_dict()
    assert read_classes(str(folder)) == tuple(NAMES)
    with pytest.raises(FileNotFoundError, match='no .*gone'):
        use_data(cfg, str(tmp_path / 'gone'))
    (tmp_path / 'flat').mkdir()
    with pytest.raises(FileNotFoundError, match='for every class'):
        use_data(cfg, str(tmp_path / 'flat'))


def test_use_data_of_wrapped_parts(folder):
    """A repeated data set, test-time augmentation, a loss with classes."""
    cfg = Config.fromfile(CHECKOUT / 'configs' / 'benchmarks' /
                          'classification' /
                          'swin-micro-w4_1xb32-coslr-30e_folder-128px.py')
    repeated = cfg.train_dataloader
    repeated.dataset = dict(
        type='RepeatDataset', times=3, dataset=repeated.dataset)
    cfg.model.head.loss = dict(
        type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=1000)
    cfg.model = dict(type='AverageClsScoreTTA', module=cfg.model)
    cfg.val_evaluator = dict(metrics=[
        dict(type='Accuracy', topk=(1, 2, 5)),
        dict(type='Accuracy', topk=5)
    ])
    cfg.test_evaluator = None
    use_data(cfg, str(folder))
    assert repeated.dataset.type == 'RepeatDataset'
    assert repeated.dataset.dataset.data_root == str(folder)
    head = cfg.model.module.head
    assert head.num_classes == head.loss.num_classes == 3
    assert [one.topk for one in cfg.val_evaluator.metrics] == [(1, 2), (1, )]


def test_use_data_of_windows(folder):
    """They stay windows, of other images."""
    cfg = Config.fromfile(PRE_TRAINING)
    windows = cfg.train_dataloader.dataset
    windows.update(
        type='greenmim.ImageWindows', data_root='scenes', window_size=256)
    before = windows.to_dict()
    use_data(cfg, str(folder))
    assert windows.to_dict() == dict(
        before, data_root=str(folder), held_out='auto')


def test_use_data_of_a_pre_training(folder, tmp_path):
    cfg = Config.fromfile(PRE_TRAINING)
    pipeline = cfg.train_dataloader.dataset.pipeline
    use_data(cfg, str(folder))
    assert cfg.train_dataloader.dataset == dict(
        type='greenmim.ImageFolder',
        data_root=str(folder),
        index_dir='~/.cache/greenmim',
        held_out='auto',
        pipeline=pipeline)
    quick_start = Config.fromfile(
        CHECKOUT / 'configs' / 'quickstart' /
        'greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py')
    archive = tmp_path / 'images.tar'
    archive.touch()
    use_data(quick_start, str(archive))
    dataset = quick_start.train_dataloader.dataset
    assert dataset.type == 'greenmim.ImageArchive'
    assert set(dataset) == {'type', 'data_root', 'held_out', 'pipeline'}
    assert dataset.pipeline[0] == dict(type='greenmim.LoadImage')
