# Copyright (c) greenmim authors. All rights reserved.
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from PIL import Image

from greenmim.datasets import ImageFolder, LoadImage, UnreadableImageError

PIPELINES = {
    'mmpretrain': [
        dict(type='greenmim.LoadImage'),
        dict(type='RandomResizedCrop', scale=32),
        dict(type='PackInputs')
    ],
    'mmselfsup': [
        dict(type='greenmim.LoadImage'),
        dict(type='RandomResizedCrop', size=32),
        dict(type='PackSelfSupInputs', meta_keys=['img_path'])
    ]
}


def save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six readable images and four broken ones, at several depths."""
    readable = ['b.JPG', 'a.png', 'x/c.jpeg', 'x/y/z/d.TIFF', 'x/e.WebP']
    for i, name in enumerate([*readable, 'f.gif']):
        save(tmp_path / name, 40 * i)
    (tmp_path / 'x' / 'empty.jpg').touch()
    (tmp_path / 'text.png').write_text('no image')
    whole = (tmp_path / 'b.JPG').read_bytes()
    (tmp_path / 'x' / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
    (tmp_path / 'x' / 'dangling.png').symlink_to(tmp_path / 'gone.png')
    # None of these counts:
    (tmp_path / 'notes.txt').write_text('text')
    save(tmp_path / '.hidden.png')
    save(tmp_path / '.thumbnails' / 'a.png')
    (tmp_path / 'folder.png').mkdir()
    return tmp_path


NAMES = [
    'a.png', 'b.JPG', 'f.gif', 'text.png', 'x/c.jpeg', 'x/cut.jpg',
    'x/dangling.png', 'x/e.WebP', 'x/empty.jpg', 'x/y/z/d.TIFF'
]
BROKEN = {'text.png', 'x/cut.jpg', 'x/dangling.png', 'x/empty.jpg'}


def build(folder, **options) -> ImageFolder:
    cfg = dict(type='greenmim.ImageFolder', data_root=str(folder), **options)
    return DATASETS.build(cfg)


@pytest.fixture(params=PIPELINES)
def scope(request):
    pytest.importorskip(request.param)
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


def test_finds_images_recursively_in_a_fixed_order(folder):
    dataset = build(folder)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert [os.path.relpath(path, folder) for path in paths] == NAMES


def test_follows_links_but_not_in_circles(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    save(other / 'linked.png')
    (folder / 'link').symlink_to(other)
    (folder / 'x' / 'circle').symlink_to(folder)
    assert len(build(folder)) == len(NAMES) + 1


def test_trains_in_both_scopes(folder, scope):
    """Through the data loader of a run, with worker processes."""
    loader = dict(
        batch_size=5,
        num_workers=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='greenmim.ImageFolder',
            data_root=str(folder),
            pipeline=PIPELINES[scope]))
    skipped, values = {}, []
    for batch in Runner.build_dataloader(loader):
        inputs = batch['inputs']
        inputs = inputs[0] if isinstance(inputs, list) else inputs
        assert inputs.shape == (5, 3, 32, 32) and inputs.dtype == torch.uint8
        values += inputs[:, 0, 0, 0].tolist()
        for sample in batch['data_samples']:
            skipped.update(sample.get('skipped_images', {}))
    names = {os.path.relpath(path, folder) for path in skipped}
    assert names == BROKEN
    assert all(path in reason for path, reason in skipped.items())
    # Readable images are used as they are, the others replaced by them.
    readable = [i for i, name in enumerate(NAMES) if name not in BROKEN]
    assert [values[i]
            for i in readable] == pytest.approx([40, 0, 200, 80, 160, 120],
                                                abs=2)


def test_replacement_depends_on_the_index_alone(folder, scope):
    pipeline = PIPELINES[scope]

    def used(dataset, order):
        return {i: dataset[i]['data_samples'].img_path for i in order}

    order = range(len(NAMES))
    first = used(build(folder, pipeline=pipeline), order)
    copy = pickle.loads(pickle.dumps(build(folder, pipeline=pipeline)))
    assert used(copy, reversed(order)) == first
    replaced = [first[NAMES.index(name)] for name in BROKEN]
    assert len(set(replaced)) > 1, 'one image stands in for all'


def test_subset(folder):
    assert len(build(folder, indices=3)) == 3
    subset = build(folder, indices=[4, 9])
    assert subset.get_data_info(1)['img_path'].endswith('d.TIFF')


@pytest.mark.parametrize('channels', [1, 3])
def test_channels(folder, channels):
    pipeline = [dict(type='greenmim.LoadImage', channels=channels)]
    image = build(folder, pipeline=pipeline)[0]['img']
    assert image.shape == ((40, 50) if channels == 1 else (40, 50, 3))


def test_unknown_argument(folder):
    with pytest.raises(TypeError, match='ann_file'):
        build(folder, ann_file='train.txt')


def test_other_extensions(folder):
    dataset = build(folder, extensions=['.gif'])
    assert len(dataset) == 1


def test_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv('HOME', str(folder))
    assert len(build('~/x/y')) == 1


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone.*Set `data_root`'):
        build(tmp_path / 'gone')
    save(tmp_path / 'a.png')
    with pytest.raises(FileNotFoundError, match='is not a folder'):
        build(tmp_path / 'a.png')


def test_empty_folder(tmp_path):
    (tmp_path / 'notes.txt').write_text('text')
    with pytest.raises(FileNotFoundError, match=r'no file below .*\.jpg'):
        build(tmp_path)


def test_stops_at_once_if_nothing_is_readable(tmp_path):
    for i in range(3):
        (tmp_path / f'{i}.jpg').write_text('no image')
    with pytest.raises(UnreadableImageError, match='none of its 3 images'):
        build(tmp_path, pipeline=[LoadImage()])


def test_stops_if_everything_becomes_unreadable(tmp_path):
    save(tmp_path / 'a.png')
    dataset = build(tmp_path, pipeline=[LoadImage()])
    (tmp_path / 'a.png').unlink()
    with pytest.raises(UnreadableImageError, match='a.png'):
        dataset[0]
