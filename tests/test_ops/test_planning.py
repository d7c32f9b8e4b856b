# Copyright (c) greenmim authors. All rights reserved.
"""Plans of whole backbones."""
import copy
import pickle

import pytest
import torch

from greenmim.models.masking import random_mask
from greenmim.ops import (GroupPlan, GroupPlanner, StageWindows, VisibleLayout,
                          Window, plan_groups)
from greenmim.ops.packing import GroupCost

STAGES = [
    StageWindows(4, (Window(5, 0, 5), Window(5, 2, 5))),
    StageWindows(2, (Window(5, 0, 5), Window(5, 2, 5))),
    StageWindows(1, (Window(5, 0, 5, True), Window(5, 2, 5, True))),
]
TENSORS = ('token_of_slot', 'slot_of_token', 'window_of_slot',
           'position_of_slot')


def layout_of(num_masks=1):
    generator = torch.Generator().manual_seed(0)
    return VisibleLayout.from_mask(
        random_mask(num_masks, (3, 4), 0.5, generator))


def assert_same(plan, other):
    assert torch.equal(plan.layout.visible, other.layout.visible)
    assert torch.equal(plan.layout.units, other.layout.units)
    assert len(plan.groups) == len(other.groups)
    for groups, others in zip(plan.groups, other.groups):
        assert list(groups) == list(others)
        for window in groups:
            for name in TENSORS:
                value = getattr(groups[window], name)
                assert torch.equal(value, getattr(others[window], name))
                assert value.dtype == getattr(others[window], name).dtype
            assert groups[window].table_size == others[window].table_size


@pytest.mark.parametrize('num_masks', [1, 3])
@pytest.mark.parametrize('overhead', [0., 100.])
def test_every_stage_and_window_is_planned(num_masks, overhead):
    """The last stage's map is 3 tokens high: only padding keeps its window;
    that of the second stage is 6x8, larger than the window."""
    layout = layout_of(num_masks)
    plan = GroupPlanner(STAGES, GroupCost(overhead))(layout)
    assert plan.layout is layout
    assert [list(groups) for groups in plan.groups
            ] == [list(stage.windows) for stage in STAGES]
    for stage, groups in zip(STAGES, plan.groups):
        for window, group_plan in groups.items():
            alone = plan_groups(layout, stage.side, window,
                                GroupCost(overhead))
            for name in TENSORS:
                assert torch.equal(
                    getattr(group_plan, name), getattr(alone, name))
    slots = [p.token_of_slot.numel() for g in plan.groups for p in g.values()]
    tokens = [p.slot_of_token.numel() for g in plan.groups for p in g.values()]
    assert plan.fill_rate == sum(tokens) / sum(slots)


def test_windows_that_fit_alike_share_a_plan():
    """A window that shrinks to the map is not shifted."""
    stage = StageWindows(1, (Window(5, 0, 5), Window(5, 2, 5)))
    layout = layout_of()
    plan = GroupPlanner([stage], cost=GroupCost())(layout)
    assert tuple(plan.groups[0]) == stage.windows
    own, = set(plan.groups[0].values())
    alone = plan_groups(layout, 1, Window(3, 0, 5))
    for name in TENSORS:
        assert torch.equal(getattr(own, name), getattr(alone, name))
    assert plan.fill_rate == own.fill_rate


def test_planners_and_plans_travel_between_processes():
    planner = GroupPlanner(STAGES)
    plan = planner(layout_of())
    assert_same(pickle.loads(pickle.dumps(plan)), plan)
    assert copy.deepcopy(plan) is plan
    assert_same(pickle.loads(pickle.dumps(planner))(layout_of()), plan)


def test_a_pickled_plan_is_hardly_larger_than_its_numbers():
    """Plans are slices of arrays, of which no more is sent."""
    plan = GroupPlanner(STAGES)(layout_of(3))
    arrays = [plan.layout.visible, plan.layout.units]
    arrays += [
        getattr(groups, name) for stage in plan.groups
        for groups in stage.values() for name in TENSORS
    ]
    size = sum(array.numel() * array.element_size() for array in arrays)
    assert size < len(pickle.dumps(plan)) < size + 200 * len(arrays)


def test_a_backbone_without_windows_has_empty_plans():
    layout = layout_of(2)
    assert GroupPlanner(())(layout).groups == []
    plan = GroupPlanner([StageWindows(2, ()), StageWindows(1, ())])(layout)
    assert plan.groups == [{}, {}]
    assert plan.fill_rate == 1
    assert plan.layout is layout


def test_all_plans_are_moved_in_one_copy():
    """To where they are already they are not; values stay what they are."""
    stages = [
        StageWindows(8, (Window(7, 0, 7), Window(7, 3, 7))),
        StageWindows(2, (Window(7, 0, 7), ))
    ]
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 1, 2:] = True
    plan = GroupPlanner(stages)(VisibleLayout.from_mask(mask))
    assert plan.groups_on(torch.device('cpu')) is plan.groups
    plans = [groups for stage in plan.groups for groups in stage.values()]
    assert len(plans) == 3
    moved = GroupPlan.move(plans, torch.device('cpu'))
    for one, other in zip(plans, moved):
        assert one.table_size == other.table_size
        for x, y in zip(one._tensors, other._tensors):
            assert torch.equal(x, y) and x.dtype == y.dtype
            assert y.is_contiguous() and y.data_ptr() % 16 == 0
    on_device = plan.groups_on(torch.device('meta'))
    for stage, other in zip(plan.groups, on_device):
        assert stage.keys() == other.keys()
        for window, groups in other.items():
            assert groups.window_of_slot.device.type == 'meta'
            assert groups.group_size == stage[window].group_size
