# Copyright (c) greenmim authors. All rights reserved.
"""The tiny detection and segmentation set, in the layouts of COCO and ADE."""
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.conftest import CHECKOUT

SCRIPT = CHECKOUT / 'tools/dataset_converters/photographs_to_coco_ade.py'
COUNTS = {'train': 5, 'val': 3}
ADE_SPLITS = {'train': 'training', 'val': 'validation'}
# COCO's name: ADE20K's label and name
OBJECTS = {
    'person': (13, 'person'),
    'cat': (127, 'animal'),
    'cup': (148, 'glass'),
    'motorcycle': (117, 'minibike')
}
BACKGROUNDS = {1: 'wall', 10: 'grass', 14: 'earth'}


def run(out, *arguments):
    return subprocess.run([sys.executable, SCRIPT, out, *arguments],
                          capture_output=True,
                          text=True,
                          cwd=CHECKOUT)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Two folders made alike, and one by another seed."""
    made = []
    for seed in '0', '0', '1':
        made.append(tmp_path_factory.mktemp('data'))
        result = run(made[-1], '--num-train', '5', '--num-val', '3', '--seed',
                     seed)
        assert result.returncode == 0, result.stderr
        assert '5 images with' in result.stdout
    return made


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob('*')) if path.is_file()
    }


def test_a_seed_fixes_every_byte(folders):
    first, again, other = map(files_of, folders)
    assert first == again
    assert first.keys() == other.keys()
    # 8 images twice, their labels, and two lists of annotations
    assert len(first) == 8 * 3 + 2
    pictures = [path for path in first if path.suffix == '.jpg']
    assert all(first[path] != other[path] for path in pictures)


@pytest.mark.parametrize('split', COUNTS)
def test_layouts_agree(folders, split):
    """Boxes, outlines, areas and labels describe the same objects."""
    coco = folders[0] / 'coco'
    ade = folders[0] / 'ade' / 'ADEChallengeData2016'
    content = json.loads(
        (coco / f'annotations/instances_{split}2017.json').read_text())
    names = {entry['id']: entry['name'] for entry in content['categories']}
    assert len(names) == 80
    assert len(content['images']) == COUNTS[split]
    ids = [entry['id'] for entry in content['annotations']]
    assert ids == list(range(1, len(ids) + 1)) and ids
    for image in content['images']:
        name = image['file_name']
        picture = Image.open(coco / f'{split}2017' / name)
        assert picture.size == (image['width'], image['height'])
        folder = ADE_SPLITS[split]
        twin = Image.open(ade / 'images' / folder / name)
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(twin))
        labels = np.asarray(
            Image.open(ade / 'annotations' / folder /
                       name.replace('jpg', 'png')))
        assert labels.shape == picture.size[::-1]

        objects = [
            entry for entry in content['annotations']
            if entry['image_id'] == image['id']
        ]
        left_over = labels.copy()
        for entry in objects:
            label, _ = OBJECTS[names[entry['category_id']]]
            left, top, width, height = entry['bbox']
            inside = labels[top:top + height, left:left + width] == label
            assert inside.sum() == entry['area'] > 0
            # The box is tight.
            assert inside.any(0)[[0, -1]].all()
            assert inside.any(1)[[0, -1]].all()
            outline = Image.new('1', picture.size)
            ImageDraw.Draw(outline).polygon(entry['segmentation'][0], fill=1)
            drawn = np.asarray(outline)
            box = np.zeros_like(drawn)
            box[top:top + height, left:left + width] = True
            mask = box & (labels == label)
            assert (drawn & mask).sum() / (drawn | mask).sum() > 0.97
            left_over[mask] = 0
        # What is no object is one background.
        rest = set(np.unique(left_over)) - {0}
        assert len(rest) == 1 and rest <= set(BACKGROUNDS)


def test_objects_come_from_photographs(folders):
    """No two images are alike, and objects differ from the background."""
    pictures = [
        np.asarray(Image.open(path))
        for path in sorted((folders[0] / 'coco').rglob('*.jpg'))
    ]
    assert all(picture.std() > 20 for picture in pictures)
    # The backgrounds are grey, the objects coloured.
    colour = [np.ptp(picture.astype(int), axis=2) for picture in pictures]
    assert max(spread.max() for spread in colour) > 100


def test_what_exists_is_kept(folders):
    before = files_of(folders[0])
    result = run(folders[0])
    assert result.returncode != 0
    assert f'{folders[0] / "coco"}, but it exists' in result.stderr
    assert files_of(folders[0]) == before


@pytest.mark.parametrize('option', ['--num-train', '--num-val'])
def test_refuses_no_images(option, tmp_path):
    result = run(tmp_path / 'data', option, '0')
    assert result.returncode != 0
    assert 'expect positive numbers' in result.stderr
    assert not (tmp_path / 'data').exists()


@pytest.mark.downstream
def test_names_are_those_of_the_libraries(folders):
    from mmdet.datasets import CocoDataset
    from mmseg.datasets import ADE20KDataset
    content = json.loads(
        (folders[0] / 'coco/annotations/instances_val2017.json').read_text())
    assert tuple(
        entry['name']
        for entry in content['categories']) == CocoDataset.METAINFO['classes']
    classes = ADE20KDataset.METAINFO['classes']
    for label, name in [*OBJECTS.values(), *BACKGROUNDS.items()]:
        assert classes[label - 1] == name
