# Copyright (c) greenmim authors. All rights reserved.
"""Plans of whole backbones: what is planned and what is kept."""
import copy
import pickle

import pytest
import torch

from greenmim.models.masking import random_mask
from greenmim.ops import (GroupPlanner, StageWindows, VisibleLayout, Window,
                          plan_groups)

STAGES = [
    StageWindows(4, (Window(5, 0, 5), Window(5, 2, 5))),
    StageWindows(2, (Window(5, 0, 5), Window(5, 2, 5))),
    StageWindows(1, (Window(5, 0, 5), Window(5, 2, 5)), pad_small_map=True),
]
TENSORS = ('token_of_slot', 'slot_of_token', 'window_of_slot',
           'position_of_slot')


def masks(number, grid=(3, 4), num_masks=1):
    generator = torch.Generator().manual_seed(0)
    return [
        random_mask(num_masks, grid, 0.5, generator) for _ in range(number)
    ]


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
    mask, = masks(1, num_masks=num_masks)
    plan = GroupPlanner(STAGES, overhead)(mask, (3, 4))
    layout = VisibleLayout.from_mask(mask)
    assert torch.equal(plan.layout.units, layout.units)
    assert [list(groups) for groups in plan.groups
            ] == [list(stage.windows) for stage in STAGES]
    for stage, groups in zip(STAGES, plan.groups):
        for window, group_plan in groups.items():
            alone = plan_groups(layout, stage.side, window, overhead)
            for name in TENSORS:
                assert torch.equal(
                    getattr(group_plan, name), getattr(alone, name))
    slots = [p.token_of_slot.numel() for g in plan.groups for p in g.values()]
    tokens = [p.slot_of_token.numel() for g in plan.groups for p in g.values()]
    assert plan.fill_rate == sum(tokens) / sum(slots)


def test_windows_that_fit_alike_share_a_plan():
    """A window that shrinks to the map is not shifted."""
    stage = StageWindows(1, (Window(5, 0, 5), Window(5, 2, 5)))
    plan = GroupPlanner([stage])(masks(1)[0], (3, 4))
    assert list(plan.groups[0]) == [Window(3, 0, 5)]


def test_recent_plans_are_kept():
    first, second, third = masks(3)
    planner = GroupPlanner(STAGES, cache_size=2)
    plans = [planner(first, (3, 4)), planner(second, (3, 4))]
    assert planner(first.clone(), (3, 4)) is plans[0]
    planner(third, (3, 4))  # second was used longest ago
    assert planner(first, (3, 4)) is plans[0]
    again = planner(second, (3, 4))
    assert again is not plans[1]
    assert_same(again, plans[1])


def test_masks_of_other_shapes_are_not_confused():
    """The same bytes on another grid, or as masks of several images."""
    mask = masks(1, (2, 6))[0]
    planner = GroupPlanner(STAGES, cache_size=5)
    fresh = GroupPlanner(STAGES)
    for shape in ((1, 2, 6), (1, 6, 2), (1, 3, 4), (1, 12, 1)):
        view = mask.reshape(shape)
        assert_same(planner(view, shape[1:]), fresh(view, shape[1:]))
    with pytest.raises(ValueError, match='grid'):
        planner(mask, (3, 4))


def test_nothing_is_kept_by_default():
    mask, = masks(1)
    planner = GroupPlanner(STAGES)
    assert planner(mask, (3, 4)) is not planner(mask, (3, 4))
    with pytest.raises(ValueError, match='cache_size'):
        GroupPlanner(STAGES, cache_size=-1)


def test_planners_and_plans_travel_between_processes():
    mask, = masks(1)
    planner = GroupPlanner(STAGES, cache_size=1)
    plan = planner(mask, (3, 4))
    assert_same(pickle.loads(pickle.dumps(plan)), plan)
    assert_same(copy.deepcopy(plan), plan)
    assert_same(pickle.loads(pickle.dumps(planner))(mask, (3, 4)), plan)


def test_a_backbone_without_windows_has_empty_plans():
    mask = random_mask(2, (3, 3), 0.5)
    assert GroupPlanner(())(mask, (3, 3)).groups == []
    plan = GroupPlanner([StageWindows(2, ()),
                         StageWindows(1, ())])(mask, (3, 3))
    assert plan.groups == [{}, {}]
    assert plan.fill_rate == 1
    assert torch.equal(plan.layout.visible, ~mask)
