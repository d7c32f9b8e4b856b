# Copyright (c) greenmim authors. All rights reserved.
"""Detectors from pre-trained and from random weights, on a made set."""
import json

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from PIL import Image, ImageDraw

from greenmim.apis import compare_detectors
from greenmim.apis.compare_detectors import DETECTOR, _set_classes
from greenmim.benchmarking.comparison import runs
from greenmim.benchmarking.comparison.coco import (CocoSplit, find_split,
                                                   write_few)

SIDE = 64
PRETRAIN_OPTIONS = {
    'model.backbone.arch.embed_dims': 8,
    'model.backbone.arch.depths': '[1,1,1,1]',
    'model.backbone.arch.num_heads': '[1,1,1,1]',
    'model.neck.in_channels': 64,
    'model.neck.embed_dims': 8,
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
}
FINETUNE_OPTIONS = {
    'model.backbone.arch.embed_dims': 8,
    'model.backbone.arch.depths': '[1,1,1,1]',
    'model.backbone.arch.num_heads': '[1,1,1,1]',
    'model.neck.in_channels': '[8,16,32,64]',
    'train_cfg.max_iters': 2,
    'train_dataloader.batch_size': 2,
    'default_hooks.logger.interval': 1,
}


def save_split(folder, name, count, ann_file=None, images=None):
    """Squares on a dark ground, every third image without any."""
    image_dir = folder / (images or name)
    image_dir.mkdir(parents=True)
    content = dict(
        images=[], annotations=[], categories=[dict(id=7, name='square')])
    for i in range(count):
        image = Image.new('RGB', (SIDE, SIDE), (30, 40, 20))
        if i % 3 < 2:
            x, y = 4 + 3 * i % 20, 8 + 5 * i % 20
            ImageDraw.Draw(image).rectangle((x, y, x + 24, y + 20),
                                            (200, 90, 60))
            content['annotations'].append(
                dict(
                    id=i + 1,
                    image_id=i + 1,
                    category_id=7,
                    bbox=[x, y, 24, 20],
                    area=480,
                    iscrowd=0))
        image.save(image_dir / f'{i}.jpg')
        content['images'].append(
            dict(id=i + 1, file_name=f'{i}.jpg', width=SIDE, height=SIDE))
    file = folder / (ann_file or f'{name}.json')
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return CocoSplit(file, image_dir)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / 'squares'
    save_split(folder, 'train', 9)
    save_split(folder, 'test', 3)
    return folder


def options(settings):
    return [f'{key}={value}' for key, value in settings.items()]


@pytest.mark.downstream
def test_from_folder_to_table(data, tmp_path, monkeypatch, capsys):
    """Every run once; the detector starts from what was pre-trained."""
    monkeypatch.setattr(runs, 'WARMUP', 1)
    monkeypatch.setattr(runs, 'TIMED', 1)
    # Formatting the logged configs takes longer than all else.
    monkeypatch.setattr(Config, 'pretty_text', property(repr))
    monkeypatch.setenv('HOME', str(tmp_path))  # for the index of the images
    made = []
    kind = compare_detectors.DetectorComparison

    class Watched(kind):

        def __post_init__(self):
            super().__post_init__()
            made.append(self)

    monkeypatch.setattr(compare_detectors, 'DetectorComparison', Watched)
    out = tmp_path / 'out'
    words = [
        data, '--seeds', 3, '--labelled-images', 4, '--budget', .5,
        '--work-dir', out, '--pretrain-options', *options(PRETRAIN_OPTIONS),
        '--finetune-options', *options(FINETUNE_OPTIONS)
    ]
    compare_detectors.main([str(word) for word in words])

    report = json.loads((out / 'comparison.json').read_text())
    assert report['settings']['labelled_images'] == 4
    rows = {row['method']: row for row in report['results']}
    assert list(rows) == ['scratch', 'scratch, longer', 'greenmim']
    for row in rows.values():
        assert row['seed'] == 3
        assert 0 <= row['ap'] <= row['fine_tuning'] <= 100
        assert row['fine_tuning_run']['cpu_seconds'] > 0
    iterations = {
        name: row['fine_tuning_run']['iterations']
        for name, row in rows.items()
    }
    assert iterations['scratch'] == iterations['greenmim'] == 2
    speed = json.loads((out / 'results' / 'speed.json').read_text())
    assert iterations['scratch, longer'] == 2 + max(
        1, round(.5 / speed['scratch']))
    table = (out / 'comparison.md').read_text()
    assert '| AP50 | AP |' in table and '4 labelled images' in table
    assert (out / 'comparison.png').stat().st_size > 5000

    # All of the pre-trained backbone is in the detector, and only there.
    comparison, = made
    trained = torch.load(
        comparison.run_dir('greenmim', 3, 'pretraining') / 'last.pth',
        weights_only=True)['state_dict']
    trained = {
        name: tensor
        for name, tensor in trained.items() if name.startswith('backbone.')
        and not name.endswith(('mask_token', 'norm3.weight', 'norm3.bias'))
    }
    for method in ('greenmim', 'scratch'):
        cfg = comparison.finetuning_config(method, 3, 'again')
        with DefaultScope.overwrite_default_scope('mmdet'):
            from mmdet.registry import MODELS
            detector = MODELS.build(cfg.model)
        detector.init_weights()
        state = detector.state_dict()
        equal = [
            torch.equal(tensor, state[name])
            for name, tensor in trained.items()
            if tensor.ndim > 1 and tensor.is_floating_point()
        ]
        assert len(equal) > 10
        assert all(equal) if method == 'greenmim' else not any(equal)
    # The same command does no run again.
    capsys.readouterr()
    compare_detectors.main([str(word) for word in words])
    assert 'run 1' not in capsys.readouterr().out


@pytest.mark.parametrize('name, ann_file, images', [
    ('train', None, None),
    ('train', 'annotations/instances_train2017.json', 'train2017'),
    ('val', 'annotations/instances_val2017.json', 'val2017'),
])
def test_layouts(tmp_path, name, ann_file, images):
    split = save_split(tmp_path, name, 3, ann_file, images)
    assert find_split(tmp_path, ('train', ) if name == 'train' else
                      ('test', 'val')) == split
    assert split.classes() == ('square', )


def test_a_missing_split(tmp_path):
    save_split(tmp_path, 'train', 3)
    with pytest.raises(FileNotFoundError, match='test.json .*for one of test'):
        find_split(tmp_path, ('test', 'val'))


def test_few_images(tmp_path):
    """As many as asked for, with all their boxes; other seeds, others."""
    split = save_split(tmp_path, 'train', 9)
    drawn = {}
    for seed in (0, 0, 1):
        file = tmp_path / 'few.json'
        write_few(split, 5, seed, file)
        content = json.loads(file.read_text())
        kept = {image['id'] for image in content['images']}
        assert len(content['images']) == len(kept) == 5
        assert content['annotations'] == [
            box for box in split.read()['annotations']
            if box['image_id'] in kept
        ]
        assert drawn.setdefault(seed, kept) == kept
    assert drawn[0] != drawn[1]
    write_few(split, None, 0, file)
    assert len(json.loads(file.read_text())['images']) == 9
    with pytest.raises(ValueError, match='expected at least 10 .* found 9'):
        write_few(split, 10, 0, file)


def test_no_box_is_an_error(tmp_path):
    split = save_split(tmp_path, 'train', 3)
    content = split.read()
    content['annotations'] = []
    split.annotations.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='none of the 2 .* has one'):
        write_few(split, 2, 0, tmp_path / 'few.json')


def test_classes_of_every_head():
    """Several heads of a cascade too, but nothing of the backbone."""
    model = ConfigDict(
        backbone=dict(num_classes=1000),
        rpn_head=dict(num_classes=1),
        roi_head=dict(bbox_head=[dict(
            num_classes=80), dict(num_classes=80)]))
    _set_classes(model, 3)
    assert model.backbone.num_classes == 1000
    assert model.rpn_head.num_classes == 1
    assert [head.num_classes for head in model.roi_head.bbox_head] == [3, 3]


def test_counted_in_iterations():
    assert Config.fromfile(DETECTOR).train_cfg.max_iters
