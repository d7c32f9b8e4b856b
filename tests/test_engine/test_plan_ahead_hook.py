# Copyright (c) greenmim authors. All rights reserved.
"""The hook in runs of MMEngine's Runner."""
import copy
import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, Compose
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import HOOKS
from mmpretrain.registry import TRANSFORMS
from mmpretrain.structures import DataSample
from torch import nn

from greenmim.datasets import PlanningCollate
from greenmim.models import GreenMIM
from greenmim.models.masking import MaskPlanner
from greenmim.ops import planning as planning_module
from greenmim.ops.planning import planner_for
from tests.micro import micro_model, micro_runner


class Images(BaseDataset):
    """Eight images of 192x192 pixels, as a pipeline packs them."""

    def load_data_list(self):
        return [dict(seed=i) for i in range(8)]

    def prepare_data(self, idx):
        generator = torch.Generator().manual_seed(idx)
        return dict(
            inputs=torch.randint(
                0, 256, (3, 192, 192), generator=generator, dtype=torch.uint8),
            data_samples=DataSample())


@pytest.fixture
def masks(monkeypatch):
    """The masks of all steps, with the plan that the samples brought."""
    seen = []
    loss = GreenMIM.loss

    def record(self, inputs, data_samples):
        plan = data_samples[0].get('mask_plan')
        units = None if plan is None else plan.layout.units.tolist()
        seen.append(units)
        return loss(self, inputs, data_samples)

    monkeypatch.setattr(GreenMIM, 'loss', record)
    return seen


@pytest.fixture
def planning(monkeypatch):
    """Counts the plans that are made in this process, not in workers."""
    count = []
    call, pid = MaskPlanner.__call__, os.getpid()

    def record(self, *args, **kwargs):
        if os.getpid() == pid:
            count.append(args)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(MaskPlanner, '__call__', record)
    return count


def train(work_dir, hook=True, num_workers=2, persistent=False, **train_cfg):
    runner = micro_runner(
        work_dir,
        dict(
            num_workers=num_workers,
            persistent_workers=persistent,
            dataset=dict(type=Images, pipeline=[])),
        [dict(type='greenmim.PlanAheadHook')] * hook,
        dict(mask_scope='image'),
        train_cfg=train_cfg)
    runner.train()
    # Left to the garbage collector, workers take five seconds each to end.
    runner.train_dataloader._iterator = None
    vars(runner.train_loop).pop('dataloader_iterator', None)


EPOCHS = dict(by_epoch=True, max_epochs=3)


@pytest.mark.parametrize('persistent', [False, True])
def test_workers_plan(persistent, tmp_path, masks, planning):
    train(tmp_path, persistent=persistent, **EPOCHS)
    assert len(masks) == 6 and not planning
    rows = [tuple(row) for units in masks for row in units]
    # one for every image, of 9e7 that are possible
    assert len(set(rows)) == len(rows) == 24


def test_runs_repeat(tmp_path, masks):
    for name in 'ab':
        train(tmp_path / name, **EPOCHS)
    assert len(masks) == 12 and masks[:6] == masks[6:]


def test_without_the_hook_the_training_process_plans(tmp_path, masks,
                                                     planning):
    train(tmp_path, hook=False, **EPOCHS)
    assert masks == [None] * 6 and len(planning) == 6


def test_without_workers(tmp_path, masks, planning):
    train(tmp_path, num_workers=0, **EPOCHS)
    assert None not in masks and len(masks) == len(planning) == 6


def test_iteration_based_loops_train(tmp_path, masks, planning):
    """Their first workers start too early to plan."""
    train(tmp_path, by_epoch=False, max_iters=3, val_interval=100)
    assert len(masks) == 3
    assert len(planning) == masks.count(None)


@pytest.mark.parametrize('crops, expected', [
    ([], None),
    ([dict(type='RandomResizedCrop', scale=(192, 160))], (192, 160)),
    ([
        dict(type='RandomCrop', crop_size=96),
        dict(type='CenterCrop', crop_size=(64, 96))
    ], (96, 64)),
    ([dict(type='RandomCrop', crop_size=(64, 96))], (64, 96)),
], ids=['none', 'resized', 'last', 'cut'])  # yapf: disable
def test_capacities_are_chosen_before_the_workers_start(
        crops, expected, monkeypatch):
    """In the training process, for the size of the last crop."""
    model = micro_model(mask_scope='image')
    planner = planner_for('cuda', model.backbone.stage_windows())
    model.mask_planner.group_planner = planner
    runner = SimpleNamespace(
        model=model,
        hooks=[],
        train_dataloader=SimpleNamespace(
            collate_fn=None,
            batch_size=3,
            dataset=SimpleNamespace(
                pipeline=Compose([TRANSFORMS.build(crop) for crop in crops]))))
    image = dict(img=np.zeros((400, 300, 3), np.uint8))
    cropped = runner.train_dataloader.dataset.pipeline(image)['img']
    assert expected in (None, cropped.shape[:2])
    state = torch.get_rng_state()
    HOOKS.build(dict(type='greenmim.PlanAheadHook')).before_train(runner)
    assert torch.equal(torch.get_rng_state(), state)
    if expected is None:
        assert not planner._capacities
        return
    (grid, masks, _), = planner._capacities
    assert (grid, masks) == (tuple(side // 32 for side in expected), 3)

    # A worker has a copy, which draws none.
    worker = pickle.loads(pickle.dumps(model.mask_planner))
    alone = copy.deepcopy(model.mask_planner)
    alone.group_planner._capacities.clear()
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    plan = alone(3, expected, None, generators[0])
    monkeypatch.setattr(planning_module, 'choose_capacities', None)
    again = worker(3, expected, None, generators[1])
    shapes, others = ([
        groups.window_of_slot.shape for stage in found.groups
        for groups in stage.values()
    ] for found in (plan, again))
    assert shapes == others


class TestBeforeTrain:

    @pytest.fixture
    def runner(self):
        model = nn.Linear(1, 1)
        model.mask_planner = object()
        return SimpleNamespace(
            model=model,
            hooks=[],
            train_dataloader=SimpleNamespace(collate_fn=lambda x: x))

    def check(self, runner, model):
        collate_fn = runner.train_dataloader.collate_fn
        HOOKS.build(dict(type='greenmim.PlanAheadHook')).before_train(runner)
        collate = runner.train_dataloader.collate_fn
        assert type(collate) is PlanningCollate
        assert collate.collate_fn is collate_fn
        assert collate.mask_planner is model.mask_planner

    def test_a_plain_model(self, runner):
        self.check(runner, runner.model)

    def test_a_wrapped_model(self, runner, tmp_path):
        model = runner.model
        torch.distributed.init_process_group(
            'gloo',
            init_method=f'file://{tmp_path}/store',
            rank=0,
            world_size=1)
        try:
            runner.model = MMDistributedDataParallel(model)
            self.check(runner, model)
        finally:
            torch.distributed.destroy_process_group()
