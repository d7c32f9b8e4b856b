# Copyright (c) greenmim authors. All rights reserved.
"""Images of any sizes in one batch."""
import numpy as np
import pytest
import torch
from mmengine.registry import FUNCTIONS
from mmpretrain.structures import DataSample

from greenmim.datasets import padding_collate
from greenmim.datasets.collate import CropWatchingPipeline


def samples_of(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [
        dict(
            inputs=torch.randint(
                0, 256, (3, *size), generator=generator, dtype=torch.uint8),
            data_samples=DataSample(metainfo=dict(number=i)))
        for i, size in enumerate(sizes)
    ]


def mirrored(image, height, width):
    """By NumPy, which mirrors as often as it takes."""
    pad = (0, 0), (0, height - image.shape[1]), (0, width - image.shape[2])
    return torch.from_numpy(np.pad(image.numpy(), pad, mode='reflect'))


def test_images_are_padded_to_whole_units_and_to_the_largest():
    samples = samples_of((64, 96), (70, 50), (96, 64))
    batch = padding_collate(samples)
    assert batch['inputs'].shape == (3, 3, 96, 96)
    assert batch['inputs'].dtype == torch.uint8
    whole = [(64, 96), (96, 64), (96, 64)]
    for actual, sample, size in zip(batch['inputs'], samples, whole):
        expected = mirrored(mirrored(sample['inputs'], *size), 96, 96)
        assert torch.equal(actual, expected)
    first, *others = batch['data_samples']
    assert first.own_sizes == [(64, 96), (70, 50), (96, 64)]
    assert not any('own_sizes' in sample for sample in others)
    assert [sample.number for sample in batch['data_samples']] == [0, 1, 2]


def test_images_of_one_size_in_units_have_no_padded_units():
    batch = padding_collate(samples_of((60, 32), (64, 31)), unit_size=16)
    assert batch['inputs'].shape == (2, 3, 64, 32)
    assert 'own_sizes' not in batch['data_samples'][0]


def test_an_image_smaller_than_its_padding_repeats_its_first_line():
    samples = samples_of((3, 32))
    padded = padding_collate(samples)['inputs'][0]
    image = samples[0]['inputs']
    assert torch.equal(padded[:, :5], image[:, [0, 1, 2, 1, 0]])
    assert torch.equal(padded[:, 5:], image[:, :1].expand(-1, 27, -1))


def test_a_sample_that_a_transform_drops():
    """The data set draws another one."""
    pipeline = CropWatchingPipeline([lambda data: None, dict])
    assert pipeline(dict(img=np.zeros((8, 8, 3)))) is None


def test_configs_name_it():
    assert FUNCTIONS.get('greenmim.padding_collate') is padding_collate


@pytest.mark.parametrize(
    'inputs',
    [[torch.zeros(3, 32, 32)], torch.zeros(32, 32)])
def test_other_inputs_are_refused(inputs):
    with pytest.raises(ValueError, match='an image of shape'):
        padding_collate([dict(inputs=inputs, data_samples=DataSample())])
