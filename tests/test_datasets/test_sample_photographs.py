# Copyright (c) greenmim authors. All rights reserved.
import socket
from collections import Counter

import numpy as np
import pytest
import skimage.data
from mmengine.registry import DATASETS, DefaultScope

from greenmim.datasets.sample_photographs import (SamplePhotographs,
                                                  load_photograph)


def build(**options) -> SamplePhotographs:
    return DATASETS.build(dict(type='greenmim.SamplePhotographs', **options))


def test_photographs_come_with_the_package(monkeypatch):

    def no_network(*args, **kwargs):
        raise OSError('the test has cut the network')

    monkeypatch.setattr(socket, 'getaddrinfo', no_network)
    monkeypatch.setattr(socket.socket, 'connect', no_network)
    load_photograph.cache_clear()
    for name in SamplePhotographs.PHOTOGRAPHS:
        photograph = load_photograph(name)
        assert photograph.dtype == np.uint8
        assert photograph.ndim == 3 and photograph.shape[2] == 3
        assert photograph.std() > 10, f'{name} is nearly one colour'


def test_views_are_parts_of_the_photographs_in_bgr():
    dataset = build(num_views=40)
    astronaut = skimage.data.astronaut()
    for i in range(0, 40, 10):
        info = dataset[i]
        assert info['img_path'] == 'astronaut'
        view = info['img'][..., ::-1]
        side = len(view)
        assert view.shape == (side, side, 3) and 160 <= side <= 512
        assert info['img_shape'] == (side, side)
        corners = np.argwhere((astronaut == view[0, 0]).all(-1))
        assert any(
            np.array_equal(astronaut[y:y + side, x:x + side], view)
            for y, x in corners)


def test_views_are_many_and_spread_over_all_photographs():
    dataset = build(num_views=200)
    assert len(dataset) == 200
    infos = [dataset[i] for i in range(200)]
    counts = Counter(info['img_path'] for info in infos)
    assert set(counts) == set(SamplePhotographs.PHOTOGRAPHS)
    assert set(counts.values()) == {20}
    assert len({info['img'].tobytes() for info in infos}) > 190


def test_seed_fixes_the_views_and_pipelines_cannot_spoil_them():
    first, again, other = build(), build(), build(seed=1)
    first[3]['img'][:] = 0
    assert np.array_equal(first[3]['img'], again[3]['img'])
    assert any(first[i]['img'].shape != other[i]['img'].shape
               for i in range(10))


def test_pipeline():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = build(pipeline=[
            dict(type='RandomResizedCrop', scale=64),
            dict(type='PackInputs')
        ])
    assert dataset[0]['inputs'].shape == (3, 64, 64)


@pytest.mark.parametrize('options, message', [
    (dict(num_views=0), 'num_views.*positive'),
    (dict(min_side=301), r'min_side.*\[1, 300\].*got 301'),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
