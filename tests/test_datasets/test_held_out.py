# Copyright (c) greenmim authors. All rights reserved.
"""Images that data sets keep out of training."""
import pytest
from mmpretrain.registry import DATASETS

from greenmim.datasets import HoldsOut, SamplePhotographs, held_out_part
from greenmim.datasets.held_out import number_to_hold_out
from tests.micro import save_images


@pytest.mark.parametrize('images, expected', [
    (99, 0), (100, 8), (200, 10), (1000, 50), (1280, 64), (10**6, 64)
])  # yapf: disable
def test_a_fixed_share(images, expected):
    assert number_to_hold_out('auto', images) == expected


@pytest.mark.parametrize('number', [-1, 10, 'all', None])
def test_impossible_numbers_are_refused(number):
    with pytest.raises(ValueError, match='from 0 to 9'):
        number_to_hold_out(number, 10)


def paths_of(dataset):
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def folder(root, **options):
    return DATASETS.build(
        dict(
            type='greenmim.ImageFolder',
            data_root=str(root),
            pipeline=[
                dict(type='greenmim.LoadImage'),
                dict(type='PackInputs')
            ],
            **options))


def test_the_two_parts_of_a_folder(tmp_path):
    save_images(tmp_path, 100, (8, 8))
    everything = paths_of(folder(tmp_path))
    training = folder(tmp_path, held_out='auto')
    part = training.held_out_part()
    assert (len(training), len(part)) == (92, 8)
    assert sorted(paths_of(training) + paths_of(part)) == everything
    assert paths_of(part) == [everything[i * 100 // 8] for i in range(8)]
    sample = part[3]
    assert sample['data_samples'].img_path == paths_of(part)[3]
    assert part.held_out_part() is None
    # A folder of which an image is unreadable is replaced within its part.
    with open(paths_of(part)[0], 'w') as file:
        file.write('no image')
    replaced = part[0]['data_samples'].img_path
    assert replaced in paths_of(part)[1:]


def test_few_images_and_other_data_sets(tmp_path):
    save_images(tmp_path, 3, (8, 8))
    few = folder(tmp_path, held_out='auto')
    assert len(few) == 3 and few.held_out_part() is None
    assert held_out_part(few) is None and held_out_part([1, 2]) is None
    with pytest.raises(ValueError, match='from 0 to 2'):
        folder(tmp_path, held_out=3)


def test_whole_photographs_are_held_out():
    """Views of one photograph overlap."""
    training = SamplePhotographs(num_views=40, held_out=2)
    part = training.held_out_part()
    assert (len(training), len(part)) == (32, 8)
    assert set(paths_of(part)) == {'astronaut', 'coffee'}
    assert not set(paths_of(training)) & set(paths_of(part))
    assert isinstance(part, HoldsOut) and part[0]['img'].ndim == 3
