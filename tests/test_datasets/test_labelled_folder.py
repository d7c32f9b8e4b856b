# Copyright (c) greenmim authors. All rights reserved.
"""Layouts of labelled images, and what becomes of broken files."""
import pickle
from pathlib import Path

import pytest
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from greenmim.datasets import (ImageFolder, LabelledFolder, LoadImage,
                               SeededSampler, UnreadableImageError)
from greenmim.datasets.labelled_folder import read_classes
from tests.test_datasets.test_image_folder import save

NAMES = ('a b', 'train', 'x,y', 'ü 中')


def fill(folder: Path, count: int, names=NAMES) -> Path:
    for name in names:
        for i in range(count):
            save(folder / name / f'{i} ü.png')
    return folder


def content(dataset, root):
    """Paths from the root, and labels."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {(str(Path(info['img_path']).relative_to(root)), info['gt_label'])
            for info in infos}


def parts(root, **options):
    return [
        LabelledFolder(str(root), split=split, **options)
        for split in ('train', 'val', 'test')
    ]


def test_class_folders_alone(tmp_path):
    """A class may be called train."""
    fill(tmp_path, 6)
    train, val, test = parts(tmp_path)
    assert train.CLASSES == val.CLASSES == NAMES
    held_out = {(f'{name}/4 ü.png', i) for i, name in enumerate(NAMES)}
    assert content(val, tmp_path) == content(test, tmp_path) == held_out
    everything = {(f'{name}/{k} ü.png', i)
                  for i, name in enumerate(NAMES)
                  for k in range(6)}
    assert content(train, tmp_path) == everything - held_out
    assert content(LabelledFolder(str(tmp_path)), tmp_path) == everything


@pytest.mark.parametrize('others, val, test', [
    (('val', ), 'val', 'val'),
    (('test', ), 'test', 'test'),
    (('val', 'test'), 'val', 'test'),
])
def test_parts_in_folders(tmp_path, others, val, test):
    for part in ('train', *others):
        fill(tmp_path / part, 2)
    for dataset, part in zip(parts(tmp_path), ('train', val, test)):
        assert content(dataset, tmp_path) == {(f'{part}/{name}/{k} ü.png', i)
                                              for i, name in enumerate(NAMES)
                                              for k in range(2)}
    assert read_classes(str(tmp_path)) == NAMES


def test_lists(tmp_path):
    """In the folder or alone; names of classes may be missing in one."""
    fill(tmp_path / 'all', 5)
    paths = [f'all/{name}/{k} ü.png' for name in NAMES for k in range(5)]
    labels = [name for name in NAMES for _ in range(5)]
    lines = [f'{path}\t{label}' for path, label in zip(paths, labels)]
    (tmp_path / 'train.txt').write_text('\n'.join(lines[:15]), 'utf-8')
    (tmp_path / 'val.txt').write_text('\n\n'.join(lines[15:]) + '\n', 'utf-8')
    train, val, test = parts(tmp_path)
    assert train.CLASSES == val.CLASSES == NAMES == read_classes(str(tmp_path))
    expected = set(zip(paths, map(NAMES.index, labels)))
    assert content(train, tmp_path) | content(val, tmp_path) == expected
    assert len(train) == 15 and content(test, tmp_path) == content(
        val, tmp_path)

    alone = tmp_path / 'alone.txt'
    alone.write_text(
        '\n'.join(f'{p} {NAMES.index(label)}'
                  for p, label in zip(paths, labels)), 'utf-8')
    train, val, _ = parts(alone)
    assert train.CLASSES == tuple('0123') == read_classes(str(alone))
    assert content(val, tmp_path) == {(f'all/{name}/4 ü.png', i)
                                      for i, name in enumerate(NAMES)}
    assert len(train) == 16
    # As MMPretrain's CustomDataset reads it.
    listed = DATASETS.build(
        dict(
            type='greenmim.SeededCustomDataset',
            data_root=str(tmp_path),
            ann_file='alone.txt'))
    assert content(listed, tmp_path) == expected and listed.CLASSES is None
    named = LabelledFolder(
        str(tmp_path), ann_file='train.txt', classes=NAMES, data_prefix='')
    assert len(named) == 15


@pytest.mark.parametrize('text, message', [
    ('a.png', 'line 1: expected the path of an image'),
    ('a.png 0\n 1', 'line 2: expected the path'),
    ('', 'is empty'),
])
def test_bad_lists(tmp_path, text, message):
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        LabelledFolder(str(tmp_path / 'list.txt'), split='train')


def test_bad_classes(tmp_path):
    (tmp_path / 'list.txt').write_text('a.png cat\nb.png dog')
    for options, message in ((dict(), "names need `classes`.*or `split`"),
                             (dict(classes=['cat']),
                              r"classes \('cat',\), got \['dog'\]")):
        with pytest.raises(ValueError, match=message):
            LabelledFolder(str(tmp_path), ann_file='list.txt', **options)
    (tmp_path / 'list.txt').write_text('a.png 2')
    with pytest.raises(ValueError, match='of the 2 classes in .*, got 2'):
        LabelledFolder(str(tmp_path), ann_file='list.txt', classes=['a', 'b'])
    with pytest.raises(ValueError, match="got 'valid'"):
        LabelledFolder(str(tmp_path), split='valid')
    save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='in a folder for every class'):
        LabelledFolder(str(tmp_path))


def test_a_class_without_images_is_named(tmp_path, monkeypatch):
    """It keeps its number."""
    lines = []
    monkeypatch.setattr('greenmim.datasets.labelled_folder.print_log',
                        lambda text, **options: lines.append(text))
    fill(tmp_path, 2, ('cat', 'dog'))
    dataset = LabelledFolder(str(tmp_path), classes=['cat', 'cow', 'dog'])
    assert content(dataset,
                   tmp_path) == {(f'{name}/{k} ü.png', label)
                                 for name, label in (('cat', 0), ('dog', 2))
                                 for k in range(2)}
    assert any("no image of these classes: ['cow']" in line for line in lines)


@pytest.fixture
def broken(tmp_path):
    """Twenty images of two classes, five of them unreadable."""
    fill(tmp_path, 10, ('one', 'two'))
    for i in range(5):
        (tmp_path / 'two' / f'{2 * i} ü.png').write_text('no image')
    return tmp_path


PIPELINE = [LoadImage(), dict(type='PackInputs')]


def test_evaluation_leaves_broken_files_out(broken, monkeypatch):
    whole = LabelledFolder(str(broken), PIPELINE, test_mode=True)
    expected = {(f'two/{2 * i} ü.png', 1) for i in range(5)}
    assert {(str(Path(p).relative_to(broken)), 1)
            for p in whole.left_out} == expected
    assert len(whole) == 15 and not content(whole, broken) & expected
    # Checked by worker processes, the same.
    monkeypatch.setattr('greenmim.datasets.labelled_folder.CHECKED', 1)
    by_workers = LabelledFolder(str(broken), PIPELINE, test_mode=True)
    assert by_workers.left_out == whole.left_out
    train, val, _ = parts(broken, pipeline=PIPELINE)
    assert len(val.left_out) == 1 and len(val) == 3
    assert not train.left_out and len(train) == 16
    # Of many, a few are listed.
    lines = []
    monkeypatch.setattr('greenmim.datasets.labelled_folder.LISTED', 2)
    monkeypatch.setattr('greenmim.datasets.labelled_folder.print_log',
                        lambda text, **options: lines.append(text))
    LabelledFolder(str(broken), PIPELINE, test_mode=True)
    text, = (line for line in lines if 'no image' in line or '... and' in line)
    assert text.count('ü.png') == 2 and text.endswith('... and 3 more')
    # A file that breaks later is not replaced.
    path = whole.get_data_info(3)['img_path']
    Path(path).write_text('no image')
    with pytest.raises(UnreadableImageError, match='cannot read the image'):
        whole[3]


def test_training_replaces_broken_files_alike(broken):
    """By any number of workers, with the label of what is shown."""
    used = []
    for workers in (0, 2):
        dataset = pickle.loads(
            pickle.dumps(LabelledFolder(str(broken), PIPELINE)))
        sampler = SeededSampler(dataset, shuffle=True, seed=3)
        loader = DataLoader(
            dataset, 4, sampler=sampler, num_workers=workers, collate_fn=list)
        used.append([(sample['data_samples'].img_path,
                      sample['data_samples'].gt_label.item(),
                      set(sample['data_samples'].get('skipped_images', {})))
                     for batch in loader for sample in batch])
    assert used[0] == used[1]
    assert all(('/two/' in path) == label for path, label, _ in used[0])
    skipped = set().union(*(skipped for *_, skipped in used[0]))
    assert len(skipped) == 5


@pytest.mark.parametrize('kind', [ImageFolder, LabelledFolder])
@pytest.mark.parametrize('workers', [0, 2])
def test_too_many_broken_files_stop_the_run(broken, kind, workers):

    def see(share):
        dataset = kind(str(broken), PIPELINE, max_skipped=share)
        for _ in DataLoader(dataset, 4, num_workers=workers, collate_fn=list):
            pass

    see(.25)
    message = r'(?s)max_skipped=20%.*5 of the first \d\d are \(\d\d%\)' \
        r'.*two/\d ü.png: its content.*train_dataloader.dataset.max_skipped'
    with pytest.raises(UnreadableImageError, match=message):
        see(.2)
    with pytest.raises(ValueError, match='within 0 and 1, got 2'):
        see(2)


def test_too_many_broken_files_to_evaluate(broken):
    message = r'(?s)max_skipped=20%.*5 of the first 20 are \(25%\)'
    with pytest.raises(UnreadableImageError, match=message):
        LabelledFolder(str(broken), PIPELINE, test_mode=True, max_skipped=.2)
