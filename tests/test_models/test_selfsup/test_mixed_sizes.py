# Copyright (c) greenmim authors. All rights reserved.
"""Images of several sizes in a batch, against each alone at its own size."""
import pickle
from functools import partial

import pytest
import torch
from mmpretrain.structures import DataSample

from greenmim.datasets import PlanningCollate, fixed_batches, padding_collate
from greenmim.models.masking import MaskPlanner
from greenmim.ops import MaskPlan, VisibleLayout
from tests.backbones import FAMILIES
from tests.backbones.checks import build
from tests.micro import micro_config, micro_model

SIZES = [(96, 160), (128, 64), (128, 150), (90, 33)]  # 3x5, 4x2, 4x5, 3x2
GRIDS = [(3, 5), (4, 2), (4, 5), (3, 2)]
KEPT = 3  # half of the smallest image's
NECKS = {
    'transformer':
    dict(depth=2, num_heads=4),
    'convolution':
    dict(type='greenmim.ConvNeck', depth=2, kernel_size=3, num_heads=None)
}
TARGETS = {
    'pixels': (None, 3072),
    'hog': (dict(type='greenmim.HOGTarget'), 3 * 9 * 16),
    'low-frequency': (dict(type='greenmim.LowFrequencyTarget'), 192),
}


def make_samples(channels=3, sizes=SIZES, scale=1.):
    generator = torch.Generator().manual_seed(0)
    return [
        dict(
            inputs=torch.randn(
                channels,
                *(int(side * scale) for side in size),
                generator=generator,
                dtype=torch.float64),
            data_samples=DataSample(metainfo=dict(mask_seed=i)))
        for i, size in enumerate(sizes)
    ]


def make_model(neck='transformer', target='pixels', **overrides):
    torch.manual_seed(0)
    config = micro_config()
    target, channels = TARGETS[target]
    neck = dict(config['neck'], **NECKS[neck])
    if neck['num_heads'] is None:
        neck.pop('num_heads')
    model = micro_model(
        backbone=dict(config['backbone'], window_size=5, pad_small_map=True),
        neck=dict(neck, out_channels=channels),
        head=dict(config['head'], target=target),
        mask_ratio=0.5,
        mask_scope='image',
        **overrides)
    return model.double().eval()


def batch_and_plan(planner, samples):
    pad = partial(padding_collate, unit_size=planner.unit_size)
    batch = PlanningCollate(pad, planner)(samples)
    plan = batch['data_samples'][0].mask_plan
    assert isinstance(plan, MaskPlan)
    return batch['inputs'], batch['data_samples'], plan


def alone(samples, plan, unit=32):
    """Number, image of whole units, mask and unit numbers of each image."""
    for i, (sample, (rows, cols)) in enumerate(zip(samples, GRIDS)):
        image = padding_collate([sample], unit_size=unit)['inputs']
        assert image.shape[2:] == (unit * rows, unit * cols)
        mask = ~plan.layout.visible[i:i + 1, :rows, :cols]
        assert int((~mask).sum()) == KEPT
        numbers = torch.arange(20).view(4, 5)[:rows, :cols].flatten()
        yield i, image, mask, numbers


@pytest.mark.parametrize('family', FAMILIES, ids=str)
def test_latent(family):
    """Every backbone whose tokens do not know the size of the map."""
    model = build(family)
    if 'pad_small_map' in str(family.cases.values()):
        model = build(family, window_size=5, pad_small_map=True)
    unit = model.unit_size
    planner = MaskPlanner(model.make_planner(), unit, 0.5, 'image')
    samples = make_samples(model.image_channels, scale=unit / 32)
    torch.manual_seed(1)
    images, _, plan = batch_and_plan(planner, samples)
    if model.reads_map_size:
        with pytest.raises(ValueError, match='resizes its positions'):
            model(images, plan)
        return
    with torch.no_grad():
        latent = model(images, plan)
        for i, image, mask, _ in alone(samples, plan, unit):
            expected = model(image, mask)[0]
            assert (latent[i] - expected).abs().max() < 1e-10
        valid = plan.layout.valid.repeat_interleave(unit, 1)
        valid = valid.repeat_interleave(unit, 2)[:, None]
        other = torch.where(valid, images, 1e3)
        assert not torch.equal(other, images)
        assert torch.equal(model(other, plan), latent)


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('neck', NECKS)
def test_prediction_and_loss(neck, target):
    model = make_model(neck, target)
    samples = make_samples()
    images, data_samples, plan = batch_and_plan(model.mask_planner, samples)
    assert plan.layout.num_visible == KEPT
    loss = model.loss(images, data_samples)['loss']
    pred = model.decode(model.encode(images, plan))
    total, number = 0, 0
    for i, image, mask, numbers in alone(samples, plan):
        own = model.mask_planner(1, image.shape[2:], mask)
        expected = model.decode(model.encode(image, own))[0]
        assert (pred[i, numbers] - expected).abs().max() < 1e-10
        own_loss = model.loss(image, [DataSample(mask=mask[0])])['loss']
        total += own_loss * mask.sum()
        number += mask.sum()
    assert number == 15 + 8 + 20 + 6 - 4 * KEPT
    assert abs(loss - total / number) < 1e-10

    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.autograd.grad(total / number, list(model.parameters()))
    for actual, twin in zip(gradients, expected):
        assert (actual - twin).abs().max() < 1e-10 * max(1, twin.abs().max())


def test_attention_without_the_mask_would_be_noticed(monkeypatch):
    model = make_model()
    samples = make_samples()
    images, _, plan = batch_and_plan(model.mask_planner, samples)
    pred = model.decode(model.encode(images, plan))
    layout = VisibleLayout(plan.layout.visible, plan.layout.units)
    seen = model.neck(model.backbone(images, plan), layout)
    for i, (rows, cols) in enumerate(GRIDS):
        error = (pred[i, 0] - seen[i, 0]).abs().max()
        assert (error > 1e-6) == ((rows, cols) != (4, 5))


def test_a_class_token_is_attended_to():
    model = make_model()
    neck = model.neck
    neck.class_token = True
    samples = make_samples()
    images, _, plan = batch_and_plan(model.mask_planner, samples)
    latent = model.backbone(images, plan)
    token = torch.randn_like(latent[:, 0])
    pred = neck(latent, plan.layout, token)
    for i, _, mask, numbers in alone(samples, plan):
        expected = neck(latent[i:i + 1], mask, token[i:i + 1])[0]
        assert (pred[i, numbers] - expected).abs().max() < 1e-10


@pytest.mark.parametrize('sampler', ['RandomMask', 'BlockMask', 'UniformMask'])
def test_masks_are_drawn_within_each_image(sampler):
    """The same number in each, and not only where the smallest one is."""
    model = make_model(mask_sampler=dict(type=f'greenmim.{sampler}'))
    model.mask_planner.mask_ratio = 0.7
    seen = torch.zeros(4, 4, 5)
    samples = make_samples()
    for seed in range(60):
        samples[0]['data_samples'] = DataSample(metainfo=dict(mask_seed=seed))
        _, _, plan = batch_and_plan(model.mask_planner, samples)
        assert plan.layout.num_visible == 1  # of 6
        seen += plan.layout.visible
    assert not seen[~plan.layout.valid].any()
    assert seen[2, :, 2:].any() and seen[2, 3].any()
    if sampler == 'RandomMask':
        assert seen[plan.layout.valid].all()


def test_drawn_in_training_as_in_the_workers():
    model = make_model()
    images, data_samples, plan = batch_and_plan(model.mask_planner,
                                                make_samples())
    expected = model.loss(images, data_samples)['loss']
    data_samples[0].set_field(None, 'mask_plan', field_type='metainfo')
    assert torch.equal(model.loss(images, data_samples)['loss'], expected)


def test_nothing_masked_leaves_the_images():
    """With a ratio of 0 the smallest image is visible as a whole."""
    model = make_model()
    model.mask_planner.mask_ratio = 0.
    samples = make_samples(sizes=SIZES[1:2] + SIZES[3:])  # 4x2 and 3x2 units
    _, _, plan = batch_and_plan(model.mask_planner, samples)
    assert torch.equal(plan.layout.visible[1], plan.layout.valid[1])
    visible = plan.layout.valid.clone()
    layout = VisibleLayout(visible, plan.layout.units, plan.layout.valid)
    pred = torch.randn(2, 8, 3072, dtype=torch.float64)
    images = torch.randn(2, 3, 128, 64, dtype=torch.float64)
    loss = model.head.loss(pred, images, layout)
    pred[~layout.valid.flatten(1)] = 7.
    assert torch.equal(model.head.loss(pred, images, layout), loss)
    pred[1, 0] += 1
    assert not torch.equal(model.head.loss(pred, images, layout), loss)


def test_fixed_batches():

    class Data(list):
        pass

    model = make_model()
    batch, = fixed_batches(
        Data(make_samples()), padding_collate, model.mask_planner, 4)
    plan = batch['data_samples'][0].mask_plan
    assert plan.layout.num_masks == 4 and plan.layout.num_visible == KEPT


def test_plans_travel_with_their_padding():
    model = make_model()
    planner = MaskPlanner(model.backbone.make_planner(), 32, 0.5, 'image')
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    mask[:, 0, 0] = False
    sizes = [(96, 96), (64, 96)], [(96, 96), (96, 64)]
    first, other = (planner(2, (96, 96), mask, own_sizes=s) for s in sizes)
    assert not torch.equal(first.layout.valid, other.layout.valid)
    again = pickle.loads(pickle.dumps(other)).layout
    assert torch.equal(again.valid, other.layout.valid)


def test_what_would_not_be_exact_is_refused():
    model = make_model()
    collated = padding_collate(make_samples())
    model.mask_planner.mask_scope = 'batch'
    with pytest.raises(ValueError, match="mask_scope='image'"):
        model.loss(collated['inputs'], collated['data_samples'])
    model.mask_planner.mask_scope = 'image'

    mask = torch.zeros(4, 5, dtype=torch.bool)
    for sample in collated['data_samples']:
        sample.mask = mask
    with pytest.raises(ValueError, match='hides the units of its padding'):
        model.loss(collated['inputs'], collated['data_samples'])

    model.image_size = (64, 64)
    with pytest.raises(ValueError, match='padding_collate'):
        model.train().loss(collated['inputs'], collated['data_samples'])

    samples = make_samples()
    shrinking = micro_model(mask_scope='image')
    with pytest.raises(ValueError, match='pad_small_map=True'):
        batch_and_plan(shrinking.mask_planner, samples)

    images, data_samples, plan = batch_and_plan(model.mask_planner, samples)
    model.head.target.reads_whole_image = True  # as a teacher does
    with pytest.raises(ValueError, match='one size, since PixelTarget'):
        model.head.loss(
            torch.zeros(4, 20, 3072, dtype=torch.float64), images, plan.layout)

    dense = micro_model(
        type='greenmim.MaskTokenMIM', mask_ratio=0.5, mask_scope='image')
    with pytest.raises(ValueError, match='use GreenMIM for a padded batch'):
        dense.double().encode(images, plan)
