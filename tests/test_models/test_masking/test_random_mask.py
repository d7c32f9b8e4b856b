# Copyright (c) greenmim authors. All rights reserved.
import math

import pytest
import torch

from greenmim.models.masking import num_visible_units, random_mask


class TestRandomMask:

    @pytest.mark.parametrize('grid, ratio, kept', [
        ((7, 7), 0.75, 12),
        ((6, 6), 0.6, 14),
        ((2, 5), 0.9, 1),
        ((2, 5), 0.7, 3),
        ((10, 10), 0.99, 1),
        ((1, 1), 0., 1),
        ((3, 5), 0., 15),
    ])
    def test_counts(self, grid, ratio, kept):
        mask = random_mask(5, grid, ratio)
        assert mask.shape == (5, *grid) and mask.dtype == torch.bool
        assert mask.device.type == 'cpu'
        assert (~mask).flatten(1).sum(1).tolist() == [kept] * 5
        assert num_visible_units(grid[0] * grid[1], ratio) == kept

    @pytest.mark.parametrize('ratio',
                             [-0.1, 1., 1.5, math.nan, math.inf, -math.inf])
    def test_ratio_out_of_range(self, ratio):
        with pytest.raises(ValueError, match='mask_ratio < 1'):
            random_mask(1, (7, 7), ratio)

    @pytest.mark.parametrize('grid, ratio', [((1, 1), 0.5), ((7, 7), 0.99)])
    def test_ratio_that_leaves_nothing(self, grid, ratio):
        with pytest.raises(ValueError, match='visible unit'):
            random_mask(1, grid, ratio)

    def test_a_generator_decides(self):
        masks = [
            random_mask(3, (7, 7), 0.75,
                        torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        ]
        assert torch.equal(masks[0], masks[1])
        assert not torch.equal(masks[0], masks[2])
        torch.manual_seed(5)
        state = torch.get_rng_state()
        random_mask(1, (7, 7), 0.75, torch.Generator().manual_seed(0))
        assert torch.equal(torch.get_rng_state(), state)

    def test_units_are_hidden_evenly_and_independently(self):
        """Every unit, and every pair of units, as often as chance says."""
        num = 20000
        mask = random_mask(
            num, (2, 3), 0.5,
            torch.Generator().manual_seed(0)).flatten(1).double()
        hidden = mask.mean(0)
        assert (hidden - 0.5).abs().max() <= 5 * 0.5 / num**0.5
        both = mask.T @ mask / num
        pairs = both[~torch.eye(6, dtype=torch.bool)]
        assert (pairs - 0.5 * 2 / 5).abs().max() <= 5 * 0.4 / num**0.5
