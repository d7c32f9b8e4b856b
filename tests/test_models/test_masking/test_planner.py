# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch

from greenmim.models.masking import MaskPlanner, random_mask
from greenmim.ops import GroupPlanner, StageWindows, VisibleLayout, Window

PLANNER = GroupPlanner([StageWindows(2, (Window(5, 0, 5), ))])


class TestMaskPlanner:

    @pytest.mark.parametrize('scope, num_masks', [('batch', 1), ('image', 5)])
    def test_draws(self, scope, num_masks):
        planner = MaskPlanner(PLANNER, 16, 0.75, scope)
        torch.manual_seed(0)
        plan = planner(5, (48, 64))
        assert plan.layout.grid == (3, 4)
        assert plan.layout.num_masks == num_masks
        assert plan.layout.num_visible == 3
        torch.manual_seed(0)
        again = planner(5, (48, 64))
        assert torch.equal(again.layout.units, plan.layout.units)
        assert not torch.equal(
            planner(5, (48, 64)).layout.units, plan.layout.units)

    def test_draws_from_a_generator(self):
        planner = MaskPlanner(PLANNER, 16)
        state = torch.get_rng_state()
        plans = [
            planner(
                2, (48, 64), generator=torch.Generator().manual_seed(seed))
            for seed in (3, 3, 4)
        ]
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(plans[0].layout.units, plans[1].layout.units)
        assert not torch.equal(plans[0].layout.units, plans[2].layout.units)

    def test_takes_a_mask(self):
        mask = random_mask(1, (3, 4), 0.5)
        planner = MaskPlanner(PLANNER, 16)
        for form in (mask, mask.float(), VisibleLayout.from_mask(mask),
                     mask.repeat_interleave(4, 1).repeat_interleave(4, 2)):
            plan = planner(7, (48, 64), form)
            assert torch.equal(plan.layout.visible, ~mask)

    @pytest.mark.parametrize('arguments, match', [
        (dict(mask_ratio=1.), 'mask_ratio'),
        (dict(mask_ratio=-0.1), 'mask_ratio'),
        (dict(mask_ratio=float('nan')), 'mask_ratio'),
        (dict(mask_scope='epoch'), 'mask_scope'),
    ])
    def test_bad_arguments(self, arguments, match):
        with pytest.raises(ValueError, match=match):
            MaskPlanner(PLANNER, 16, **arguments)

    def test_images_that_do_not_fit(self):
        planner = MaskPlanner(PLANNER, 16)
        with pytest.raises(ValueError, match='multiples'):
            planner(1, (48, 60))
        with pytest.raises(ValueError, match='visible unit'):
            planner(1, (16, 16))
        with pytest.raises(ValueError, match='grid'):
            planner(1, (48, 48), random_mask(1, (3, 4), 0.5))
