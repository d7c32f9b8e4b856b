# Copyright (c) greenmim authors. All rights reserved.
"""Groups for a GPU: whole tiles, and a fixed number of them for every map."""
import copy

import numpy as np
import pytest
import torch

from greenmim.models.masking import (BlockMask, MaskPlanner, UniformMask,
                                     random_mask)
from greenmim.ops import (GroupPlanner, StageWindows, VisibleLayout, Window,
                          group_attention, plan_groups)
from greenmim.ops.capacity import first_fit
from greenmim.ops.group_attention import GroupIndex
from greenmim.ops.grouping import WindowMaps, plan_maps
from greenmim.ops.packing import GroupCost, min_groups
from greenmim.ops.planning import CPU_COST, GPU_COST, planner_for
from tests.micro import micro_model

# Swin-B at 224 px: 24 blocks, shifted and not in turns.
SIDES, DEPTHS, HEADS = (8, 4, 2, 1), (2, 2, 18, 2), (4, 8, 16, 32)
SIZE = (224, 224)


def swin(window):
    kinds = (Window(window, 0, window), Window(window, window // 2, window))
    return [StageWindows(side, kinds) for side in SIDES]


def planner_of(window, fixed=True, cost=GPU_COST, ratio=0.75, **options):
    planner = GroupPlanner(swin(window), cost, fixed)
    return MaskPlanner(planner, 32, ratio, **options)


def draw(planner, number=100, seed=1, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return [planner(1, size, None, generator) for _ in range(number)]


def tiles(plans):
    """Squares of 64 x 64 logits, of all heads and blocks."""
    total = 0
    for plan in plans:
        for groups, depth, heads in zip(plan.groups, DEPTHS, HEADS):
            for kind in groups.values():
                squares = kind.num_groups * (-(-kind.group_size // 64))**2
                total += squares * heads * depth // len(groups)
    return total


def shapes(plans):
    return {(i, kind.shift, groups.num_groups, groups.group_size)
            for plan in plans
            for i, stage in enumerate(plan.groups)
            for kind, groups in stage.items()}


@pytest.mark.parametrize('window, for_cpu, fixed', [(7, 2.4, 1.10),
                                                    (14, 1.1, 1.35)])
def test_tiles_of_a_step(window, for_cpu, fixed):
    """Against the best multiples of 16, and one shape for every map."""
    best = draw(planner_of(window, fixed=False))
    of_cpu = draw(planner_of(window, fixed=False, cost=CPU_COST))
    static = draw(planner_of(window))
    assert tiles(of_cpu) > for_cpu * tiles(best)
    assert tiles(static) <= fixed * tiles(best)
    assert len(shapes(static)) == 8 < len(shapes(best)) < len(shapes(of_cpu))
    for _, _, _, size in shapes(best) | shapes(static):
        assert size % 16 == 0


@pytest.mark.parametrize('batches',
                         [1, pytest.param(10, marks=pytest.mark.slow)])
def test_fewer_than_one_mask_of_ten_thousand_exceeds_it(batches):
    """The map whose number of groups varies most."""
    window = Window(7, 0, 7)
    planner = GroupPlanner([StageWindows(8, (window, ))], GPU_COST, True)
    plan, = draw(MaskPlanner(planner, 32), 1)
    groups, exceeding = plan.groups[0][window], 0
    maps = WindowMaps.make((7, 7), [(8, window)])
    for seed in range(50, 50 + batches):
        masks = random_mask(20000, (7, 7), 0.75,
                            torch.Generator().manual_seed(seed))
        units = VisibleLayout.from_mask(masks).units.numpy()
        counts, = maps.counts(units)
        assert (counts.sum(1) == 12 * 64).all()
        needed = first_fit(counts, groups.group_size)
        assert np.median(needed) >= groups.num_groups - 1
        exceeding += int((needed > groups.num_groups).sum())
    assert exceeding < 20000 * batches / 10**4 + 2


def first_fit_of_one(counts, size):
    room = []
    for count in sorted(counts, reverse=True):
        group = next((i for i, left in enumerate(room) if left >= count), None)
        if group is None and count:
            room.append(size - count)
        elif count:
            room[group] -= count
    return len(room)


def test_first_fit_is_that_of_one_mask_after_another():
    counts = np.random.default_rng(0).integers(0, 30, (200, 12))
    expected = [first_fit_of_one(row.tolist(), 48) for row in counts]
    assert first_fit(counts, 48).tolist() == expected
    assert len(set(expected)) > 2
    assert all(fewest >= min_groups(row.tolist(), 48)
               for fewest, row in zip(expected, counts))


@pytest.mark.parametrize('options', [
    dict(sampler=BlockMask()),
    dict(sampler=UniformMask()),
    dict(ratio=0.6),
    dict(size=(224, 160)),
    dict(mask_scope='image', images=4),
], ids=['blocks', 'uniform', 'ratio', 'size', 'image'])  # yapf: disable
def test_every_sampler_ratio_scope_and_size(options):
    options = dict(options)
    size, images = options.pop('size', SIZE), options.pop('images', 1)
    planner = planner_of(7, **options)
    generator = torch.Generator().manual_seed(3)
    plans = [planner(images, size, None, generator) for _ in range(30)]
    assert len(shapes(plans)) == 8
    again = planner_of(7, **options)  # in another process
    generator = torch.Generator().manual_seed(3)
    assert shapes([again(images, size, None, generator)]) == shapes(plans)


def test_ratio_and_size_that_change_have_capacities_of_their_own():
    planner = planner_of(7)
    first = shapes(draw(planner, 5))
    planner.mask_ratio = 0.5
    assert not shapes(draw(planner, 5)) & first - {(3, 0, 1, 32)}
    planner.mask_ratio = 0.75
    assert shapes(draw(planner, 5, size=(320, 320))) != first
    assert shapes(draw(planner, 5)) == first


def test_a_mask_beyond_the_capacity_gets_more_groups():
    layout = VisibleLayout.from_mask(
        random_mask(1, (7, 7), 0.75,
                    torch.Generator().manual_seed(0)))
    maps = WindowMaps.make((7, 7), [(8, Window(7, 3, 7))])
    for capacity in ((1, 64), (40, 16)):
        plan, = plan_maps(layout, maps, GPU_COST, [capacity])
        assert plan.group_size == 64 or plan.group_size > capacity[1]
        assert plan.group_size % 16 == 0
        held = plan.window_of_slot[plan.window_of_slot >= 0]
        assert len(held) == len(plan.slot_of_token) == 12 * 64
    # Given masks are not the sampler's: their groups are the best ones.
    given = planner_of(7)(1, SIZE, layout)
    best = GroupPlanner(swin(7), GPU_COST)(layout)
    assert shapes([given]) == shapes([best])


@pytest.mark.parametrize('backend', ['eager', 'sdpa'])
@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_attention_and_gradients_are_those_of_the_best_groups(backend, scope):
    """Groups that are partly or wholly empty change nothing."""
    window = Window(7, 3, 7)
    images, heads = 2, 2
    layout = VisibleLayout.from_mask(
        random_mask(images if scope == 'image' else 1, (7, 7), 0.75,
                    torch.Generator().manual_seed(0)))
    maps = WindowMaps.make((7, 7), [(4, window)])
    plans = [
        plan_groups(layout, 4, window, CPU_COST),
        plan_maps(layout, maps, GPU_COST, [(24, 64)])[0]
    ]
    torch.manual_seed(0)
    qkv = torch.randn(images, 12, 16, 3 * heads * 4).double()
    table = torch.randn(plans[0].num_entries, heads).double()
    weight = torch.randn(images, 12, 16, heads * 4).double()
    results = []
    for plan in plans:
        given = [x.clone().requires_grad_() for x in (qkv, table)]
        index = GroupIndex.from_plan(plan, heads, torch.device('cpu'))
        out = group_attention(given[0], index, given[1], 0.5, backend=backend)
        gradients = torch.autograd.grad((out * weight).sum(), given)
        results.append((out, *gradients))
    assert (plans[1].window_of_slot < 0).all(1).any()
    assert plans[0].num_groups < 24
    for value, expected in zip(*results):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_a_model_trains_the_same():
    """Loss and gradients of a Swin, planned for a CPU and for a GPU."""
    torch.manual_seed(0)
    model = micro_model().double()
    images = torch.randn(2, 3, 128, 128).double()
    results = []
    for planner in (planner_for('cpu', model.backbone.stage_windows()),
                    planner_for('cuda', model.backbone.stage_windows())):
        twin = copy.deepcopy(model)
        twin.mask_planner.group_planner = twin.backbone._planner = planner
        torch.manual_seed(1)
        loss = twin.loss(images, None)['loss']
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in twin.parameters())])
    for value, expected in zip(*results):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
    assert planner.fixed and planner._capacities


def test_the_planner_of_a_device():
    assert planner_for('cpu', swin(7)).cost == CPU_COST
    assert not planner_for('cpu', swin(7)).fixed
    for window, fixed in ((7, True), (8, True), (14, False)):
        planner = planner_for('cuda', swin(window))
        assert (planner.cost, planner.fixed) == (GPU_COST, fixed)
    assert planner_for("cuda", ())(VisibleLayout.from_mask(
        torch.zeros(1, 2, 2, dtype=torch.bool))).groups == []


def test_cost_of_tiles():
    cost = GroupCost(overhead=2., tile=64, step=16)
    assert [cost(size) for size in (16, 64, 80)
            ] == [64**2 + 32, 64**2 + 128, 128**2 + 160]
    with pytest.raises(ValueError, match='overhead'):
        GroupCost(-1.)
