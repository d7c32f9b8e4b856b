# Copyright (c) greenmim authors. All rights reserved.
"""Masks that are drawn and planned in data-loading workers."""
import os
import pickle
from functools import partial
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from mmengine.dataset import default_collate, worker_init_fn
from mmengine.structures import BaseDataElement
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset, get_worker_info

from greenmim.datasets import PlanningCollate
from greenmim.models.masking import random_mask
from greenmim.ops import MaskPlan
from tests.micro import micro_config, micro_model

SIZE = (192, 160)
GRID = (6, 5)


class Images(Dataset):
    """Images as pipelines pack them.

    Args:
        views (bool): Pack a list of one image, as MMSelfSup does.
        mask (str): ``none``, ``all`` or ``some`` (all but the first).
    """

    def __init__(self, views=False, mask='none', length=12):
        self.views, self.mask, self.length = views, mask, length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        image = torch.randint(
            0, 256, (3, *SIZE), generator=generator, dtype=torch.uint8)
        sample = DataSample(metainfo=dict(worker=get_worker_info().id))
        if self.mask == 'all' or self.mask == 'some' and i:
            sample.mask = random_mask(1, GRID, 0.5, generator)[0]
            if self.views:
                sample.mask = BaseDataElement(value=sample.mask)
        return dict(
            inputs=[image] if self.views else image, data_samples=sample)


def make_model(scope='batch'):
    torch.manual_seed(0)
    return micro_model(
        mask_scope=scope,
        backbone=dict(micro_config()['backbone'], window_size=7),
        data_preprocessor=dict(
            type='SelfSupDataPreprocessor',
            mean=[120., 110., 100.],
            std=[60., 50., 40.],
            to_rgb=True))


class RefuseToPlan:
    """A planner that stays in the process of the tests."""

    def __init__(self):
        self.pid = os.getpid()

    def __call__(self, *args):
        raise AssertionError('planned in the training process')


def make_loader(model, dataset, seed=0, rank=0, num_workers=2, **kwargs):
    """A loader as MMEngine makes it, whose workers plan."""
    torch.manual_seed(seed)
    return DataLoader(
        dataset,
        batch_size=3,
        num_workers=num_workers,
        collate_fn=PlanningCollate(default_collate, model.mask_planner),
        worker_init_fn=partial(
            worker_init_fn, num_workers=2, rank=rank, seed=seed),
        **kwargs)


def plan_of(batch) -> MaskPlan:
    plans = [sample.get('mask_plan') for sample in batch['data_samples']]
    assert plans[1:] == [None] * (len(plans) - 1)
    assert isinstance(plans[0], MaskPlan)
    return plans[0]


@pytest.mark.parametrize('views', [False, True])
@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_the_plan_is_used(scope, views, monkeypatch):
    """Through workers and the data preprocessor; none is made on the way."""
    model = make_model(scope)
    loader = make_loader(model, Images(views))
    monkeypatch.setattr(model, 'mask_planner', RefuseToPlan())
    monkeypatch.setattr(model.backbone, 'make_planner', RefuseToPlan())
    plans, losses = [], []
    for batch in loader:
        plans.append(plan_of(batch))
        assert plans[-1].layout.num_masks == (1 if scope == 'batch' else 3)
        assert plans[-1].layout.num_visible == 7
        data = model.data_preprocessor(batch)
        # meta information is copied time and again, a plan is not
        assert data['data_samples'][0].get('mask_plan') is plans[-1]
        losses.append(model(**data, mode='loss')['loss'])
    assert len(losses) == 4

    monkeypatch.undo()
    for loss, plan, batch in zip(losses, plans, make_loader(model, Images())):
        masks = ~plan.layout.visible.expand(3, -1, -1)
        for sample, mask in zip(batch['data_samples'], masks):
            sample.set_field(None, 'mask_plan', field_type='metainfo')
            sample.mask = mask
        data = model.data_preprocessor(batch)
        assert torch.equal(model(**data, mode='loss')['loss'], loss)


@pytest.mark.parametrize('mask', ['all', 'some'])
@pytest.mark.parametrize('views', [False, True])
def test_masks_of_the_pipeline_are_planned(mask, views):
    model = make_model()
    loader = make_loader(model, Images(views, mask))
    if mask == 'some':
        with pytest.raises(ValueError, match='2 masks for 3 samples'):
            next(iter(loader))
        return
    batch = next(iter(loader))
    masks = torch.stack([
        getattr(sample.mask, 'value', sample.mask)
        for sample in batch['data_samples']
    ])
    assert torch.equal(plan_of(batch).layout.masked, masks)
    data = model.data_preprocessor(batch)
    actual = model(**data, mode='loss')['loss']
    inputs = data['inputs'][0] if views else data['inputs']
    latent = model.backbone(inputs, masks)
    expected = model.head.loss(model.neck(latent, masks), inputs, masks)
    assert torch.equal(actual, expected)


def draw_epochs(loader, num_epochs=2) -> list:
    """The masks of all batches as tuples, and who drew them."""
    masks, workers = [], []
    for _ in range(num_epochs):
        for batch in loader:
            units = plan_of(batch).layout.units
            masks += [tuple(row) for row in units.tolist()]
            workers.append(batch['data_samples'][0].worker)
    assert set(workers) == set(range(loader.num_workers))
    return masks


@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_masks_differ(persistent, scope):
    """Between images, batches, workers, epochs and processes.

    MMEngine seeds workers that do not persist alike in every epoch. Of two
    million possible masks, 48 seldom have one twice; the seeds are fixed.
    """
    model = make_model(scope)
    kwargs = dict(persistent_workers=persistent)
    first, again, other_rank, other_seed = (draw_epochs(
        make_loader(model, Images(), seed, rank, **kwargs))
                                            for seed, rank in ((0, 0), (0, 0),
                                                               (0, 1), (1, 0)))
    assert len(first) == 2 * 4 * (1 if scope == 'batch' else 3)
    assert first == again
    for masks in (first, first + other_rank, first + other_seed):
        assert len(set(masks)) == len(masks)


def test_spawned_workers():
    """They get a pickled copy of the planner."""
    model = make_model()
    loader = make_loader(
        model,
        Images(length=3),
        num_workers=1,
        multiprocessing_context='spawn')
    assert plan_of(next(iter(loader))).layout.grid == GRID


def test_what_the_collate_function_returns_is_passed_on():
    model = make_model()
    batch = dict(
        inputs=torch.zeros(1, 3, *SIZE), data_samples=[DataSample()], more=3)
    samples = [dict(inputs=torch.zeros(3, *SIZE))]
    collate = PlanningCollate(lambda got: batch
                              if got is samples else None, model.mask_planner)
    assert collate(samples) is batch and batch['more'] == 3
    assert plan_of(batch).layout.grid == GRID


def test_a_plan_travels_as_plain_bytes():
    """A tensor would travel as an open file, and a plan has thirty."""
    plan = make_model('image').mask_planner(3, SIZE)
    data = bytes(ForkingPickler.dumps(plan))
    assert b'rebuild_' not in data
    assert b'rebuild_' in bytes(ForkingPickler.dumps(plan.layout.visible))
    again = pickle.loads(data)
    assert torch.equal(again.layout.visible, plan.layout.visible)
