# Copyright (c) greenmim authors. All rights reserved.
"""Samples and masks that are the same in every run."""
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate
from mmpretrain.registry import DATASETS
from PIL import Image

from greenmim.datasets import (PlanningCollate, fixed_batches, fixed_samples,
                               folder_with_pipeline)
from greenmim.models.masking import MaskPlanner
from greenmim.ops import GroupPlanner
from tests.micro import save_images

PIPELINE = [
    dict(type='greenmim.LoadImage'),
    dict(type='RandomResizedCrop', scale=64),
    dict(type='RandomFlip', prob=.5),
    dict(type='PackInputs')
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images') / 'a'
    save_images(root, 10, (80, 80))
    return root


@pytest.fixture(params=['greenmim.ImageFolder', 'CustomDataset'])
def dataset(request, folder):
    root = folder if 'greenmim' in request.param else folder.parent
    return DATASETS.build(
        dict(type=request.param, data_root=str(root), pipeline=PIPELINE))


def states():
    return (random.getstate(), np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist())


def test_samples_are_evenly_spaced_and_fixed(dataset):
    before = states()
    samples = fixed_samples(dataset, 4)
    assert states() == before
    names = [s['data_samples'].img_path.split('/')[-1] for s in samples]
    assert names == ['0.png', '2.png', '5.png', '7.png']
    torch.rand(1), np.random.rand(), random.random()
    for a, b in zip(samples, fixed_samples(dataset, 4)):
        assert torch.equal(a['inputs'], b['inputs'])
    other = fixed_samples(dataset, 4, seed=1)
    assert not torch.equal(samples[0]['inputs'], other[0]['inputs'])
    assert len(fixed_samples(dataset, 99)) == 10


@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_batches_have_one_fixed_mask(dataset, scope):
    planner = MaskPlanner(GroupPlanner(()), 32, mask_scope=scope)
    planning = PlanningCollate(default_collate, planner)
    first, second = (
        fixed_batches(dataset, collate, planner, 5, 3)
        for collate in (default_collate, planning))
    assert [len(batch['inputs']) for batch in first] == [3, 2]
    masks = [
        batch['data_samples'][0].mask_plan.layout.visible
        for batch in first + second
    ]
    for mask in masks:
        assert mask.shape == (1, 2, 2)
        assert torch.equal(mask, masks[0])


def test_other_folder(tmp_path):
    """With the transforms of the data set, and a loader where it has none."""
    Image.new('RGB', (80, 90), (0, 100, 200)).save(tmp_path / 'a.png')
    built = Compose(PIPELINE).transforms
    for pipeline in PIPELINE, PIPELINE[1:], built, built[1:]:
        sample, = fixed_samples(
            folder_with_pipeline(pipeline, str(tmp_path)), 5)
        image = sample['inputs']
        assert image.shape == (3, 64, 64)
        assert image[:, 9, 9].tolist() == [200, 100, 0]
