# Copyright (c) greenmim authors. All rights reserved.
import shutil
import sys
from pathlib import Path

import pytest
from mmengine.dataset import BaseDataset

from greenmim.evaluation import labelled_folder

CLASSES = tuple(f'class{i}' for i in range(6))


def names(dataset):
    return [
        str(Path(dataset.get_data_info(i)['img_path']).parent.name) + '/' +
        Path(dataset.get_data_info(i)['img_path']).name
        for i in range(len(dataset))
    ]


@pytest.mark.parametrize('part', ['val', 'test'])
def test_train_and_held_out_parts(labelled, tmp_path, part):
    (tmp_path / 'train').symlink_to(labelled / 'train')
    (tmp_path / part).symlink_to(labelled / 'val')
    bank, queries = labelled_folder(str(tmp_path), size=56)
    assert bank.CLASSES == queries.CLASSES == CLASSES
    assert (len(bank), len(queries)) == (24, 12)
    sample = queries[5]
    assert sample['inputs'].shape == (3, 56, 56)
    assert sample['data_samples'].gt_label.tolist() == [2]


def test_every_fifth_image_is_held_out(labelled, tmp_path):
    for i in range(12):
        image = labelled / 'train' / f'class{i % 2}' / '0.png'
        folder = tmp_path / f'class{i % 2}'
        folder.mkdir(exist_ok=True)
        shutil.copy(image, folder / f'{i // 2}.png')
    bank, queries = labelled_folder(str(tmp_path))
    assert names(queries) == ['class0/4.png', 'class1/4.png']
    assert names(bank) == [
        f'class{c}/{i}.png' for c in range(2) for i in (0, 1, 2, 3, 5)
    ]
    assert queries[1]['data_samples'].gt_label.item() == 1
    assert queries[1]['inputs'].shape == (3, 224, 224)


def test_grey_images(labelled):
    bank, _ = labelled_folder(str(labelled), size=32, channels=1)
    assert bank[0]['inputs'].shape == (1, 32, 32)


def test_bad_folders_are_refused(labelled, tmp_path):

    def refused(message):
        with pytest.raises(ValueError, match=message):
            labelled_folder(str(tmp_path / 'data'))

    refused('there is no folder')
    (tmp_path / 'data' / 'a').mkdir(parents=True)
    refused('found no image')
    shutil.copy(labelled / 'val' / 'class0' / '0.png', tmp_path / 'data' / 'a')
    refused('at least 5 images')
    (tmp_path / 'data' / 'train').symlink_to(labelled / 'train')
    refused('there is neither')
    (tmp_path / 'data' / 'val').mkdir()
    refused(r"only one of them has \['class0', .*'class5'\]")
    (tmp_path / 'data' / 'val' / 'class0').symlink_to(labelled / 'val' /
                                                      'class0')
    refused(r"only one of them has \['class1', .*'class5'\]")


def test_parts_do_not_depend_on_what_mmengine_copied_before(
        labelled, monkeypatch):
    """`BaseDataset.get_subset` remembers the ids of objects that are gone."""
    monkeypatch.setattr(sys.modules['greenmim.datasets.labelled_folder'],
                        'HELD_OUT', 2)
    remembered = BaseDataset._copy_without_annotation.__defaults__[0]
    before = dict(remembered)
    for part in labelled_folder(str(labelled / 'train'), 32):
        assert part[0]['inputs'].shape == (3, 32, 32)
        assert len(part) == 12
    assert remembered == before
