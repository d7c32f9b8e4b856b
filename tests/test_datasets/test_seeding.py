# Copyright (c) greenmim authors. All rights reserved.
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler

from greenmim.datasets import (SamplePhotographs, SeededInfiniteSampler,
                               SeededSampler)
from greenmim.datasets.seeding import SeededIndex, mix_seeds, sample_randomness

PIPELINE = [
    dict(type='RandomResizedCrop', scale=32),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs')
]


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_an_index_keeps_its_seed_in_a_worker():
    index = pickle.loads(pickle.dumps(SeededIndex(3, 2**62)))
    assert index == 3 and index.seed == 2**62
    assert 'abcd'[index] == 'd'


def test_mixed_seeds_differ():
    seeds = {mix_seeds(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seeds(1, 2) == mix_seeds(1, 2)


def test_all_generators_are_seeded_and_put_back():
    expected = []
    for outside in (0, 1):
        random.seed(outside)
        np.random.seed(outside)
        torch.manual_seed(outside)
        before = draw()
        with sample_randomness(SeededIndex(0, 7)):
            expected.append(draw())
        after = draw()
        random.seed(outside)
        np.random.seed(outside)
        torch.manual_seed(outside)
        assert [before, after] == [draw(), draw()]
    assert expected[0] == expected[1]


def test_a_plain_index_changes_nothing():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with sample_randomness(0):
        assert torch.equal(torch.rand(1), expected)


def test_states_are_put_back_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(KeyError):
        with sample_randomness(SeededIndex(0, 7)):
            raise KeyError
    assert torch.equal(torch.get_rng_state(), state)


def test_a_sample_is_a_function_of_its_seed():
    dataset = SamplePhotographs(num_views=4, pipeline=PIPELINE)
    first, again, other = (dataset[SeededIndex(2, seed)] for seed in (5, 5, 6))
    assert torch.equal(first['inputs'], again['inputs'])
    assert not torch.equal(first['inputs'], other['inputs'])
    seeds = [x['data_samples'].mask_seed for x in (first, again, other)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert 'mask_seed' not in dataset[2]['data_samples']


@pytest.mark.parametrize('start', [0, 3, 10])
def test_sampler_begins_in_the_midst(start):
    dataset = list(range(10))
    for epoch in range(3):
        plain = DefaultSampler(dataset, seed=1)
        plain.set_epoch(epoch)
        sampler = SeededSampler(dataset, seed=1)
        sampler.set_epoch(epoch)
        sampler.start = start
        indices = list(sampler)
        assert indices == list(plain)[start:]
        assert [index.seed for index in indices
                ] == [mix_seeds(1, epoch, index) for index in indices]


def test_infinite_sampler_seeds_every_pass():
    sampler = iter(SeededInfiniteSampler(list(range(5)), seed=1))
    passes = [[next(sampler) for _ in range(5)] for _ in range(3)]
    assert all(sorted(indices) == list(range(5)) for indices in passes)
    assert len({index.seed for indices in passes for index in indices}) == 15
    again = iter(SeededInfiniteSampler(list(range(5)), seed=1))
    assert [next(again).seed for _ in range(15)
            ] == [index.seed for indices in passes for index in indices]


def test_infinite_sampler_in_order():
    sampler = iter(
        SeededInfiniteSampler(list(range(3)), seed=1, shuffle=False))
    assert [next(sampler) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
