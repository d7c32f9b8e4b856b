# Copyright (c) greenmim authors. All rights reserved.
"""Which of plan, masks and seed decides, and sizes of images in all forms."""
import pytest
import torch
from mmengine.structures import BaseDataElement
from mmpretrain.structures import DataSample

from greenmim.models.masking import MaskPlanner, data_samples, random_mask
from greenmim.models.masking.data_samples import image_size, plan_masks
from greenmim.ops import GroupPlanner

SIZE, GRID = (96, 64), (6, 4)
PLANNER = MaskPlanner(GroupPlanner(()), 16)


def draw(seed):
    return random_mask(1, GRID, 0.75, torch.Generator().manual_seed(seed))


def test_plan_before_masks_before_seed_before_generator():
    samples = [DataSample() for _ in range(3)]

    def masked(generator=None):
        plan = plan_masks(PLANNER, samples, 3, SIZE, generator)
        return plan.layout.masked

    torch.manual_seed(4)
    assert torch.equal(masked(), draw(4))  # the global generator
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(masked(generator), draw(5))

    data_samples.write_seed(samples[1], 7)
    assert torch.equal(masked(torch.Generator().manual_seed(5)), draw(5))
    data_samples.write_seed(samples[0], 6)
    assert torch.equal(masked(generator), draw(6))

    masks = torch.cat([draw(seed) for seed in range(3)])
    for sample, mask in zip(samples, masks):
        sample.mask = BaseDataElement(value=mask)
    assert torch.equal(masked(generator), masks)

    plan = PLANNER(3, SIZE, draw(8))
    data_samples.write_plan(samples, plan)
    assert plan_masks(PLANNER, samples, 3, SIZE, generator) is plan


def test_padding_is_known_to_the_plan():
    planner = MaskPlanner(GroupPlanner(()), 16, mask_scope='image')
    samples = [DataSample(), DataSample()]
    data_samples.write_own_sizes(samples, [(96, 64), (96, 30)])
    layout = plan_masks(planner, samples, 2, SIZE).layout
    assert layout.valid[1].tolist() == [[True, True, False, False]] * 6


def test_fields_of_a_sample():
    """Without the plan; MMSelfSup's masks are unwrapped, data or not."""
    mask = draw(0)[0]
    wrapped = BaseDataElement(value=mask)
    sample = DataSample(metainfo=dict(img_path='a.png', kept=wrapped))
    sample.mask = wrapped
    data_samples.write_plan([sample], PLANNER(1, SIZE, mask[None]))
    metainfo, data = data_samples.read_fields(sample)
    assert metainfo.keys() == {'img_path', 'kept'} and data.keys() == {'mask'}
    assert torch.equal(metainfo['kept'], mask) and data['mask'] is mask


def test_without_samples():
    assert plan_masks(PLANNER, (), 2, SIZE).layout.grid == GRID


@pytest.mark.parametrize('inputs', [
    torch.zeros(2, 3, *SIZE),
    [torch.zeros(2, 3, *SIZE)],
    [torch.zeros(3, *SIZE), torch.zeros(3, 32, 32)],
    ([torch.zeros(3, *SIZE)] * 2, ),
])
def test_image_size(inputs):
    assert image_size(inputs) == SIZE
