# Copyright (c) greenmim authors. All rights reserved.
"""What every sampler promises, and the pattern that each is for."""
import math

import numpy as np
import pytest
import torch
from PIL import Image

from greenmim.models import BlockMask, GivenMask, RandomMask, UniformMask
from greenmim.models.masking import num_visible_units, random_mask
from greenmim.registry import TASK_UTILS

DRAWN = ['RandomMask', 'BlockMask', 'UniformMask']


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('name', DRAWN)
@pytest.mark.parametrize('grid', [(7, 7), (8, 6), (5, 4), (1, 9), (3, 1)])
@pytest.mark.parametrize('ratio', [0.75, 0.8])
def test_exactly_the_ratio_is_hidden(name, grid, ratio):
    if name == 'UniformMask' and grid == (3, 1):
        ratio = 0.5
    if int(math.prod(grid) * (1 - ratio) + 1e-6) == 0:
        ratio = 0.5
    sampler = TASK_UTILS.build(dict(type=f'greenmim.{name}'))
    masks = sampler(40, grid, ratio, generator())
    assert masks.shape == (40, *grid) and masks.dtype == torch.bool
    kept = num_visible_units(math.prod(grid), ratio)
    assert ((~masks).flatten(1).sum(1) == kept).all()
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 1
    torch.manual_seed(1)  # the generator alone decides
    assert torch.equal(sampler(40, grid, ratio, generator()), masks)
    assert not torch.equal(sampler(40, grid, ratio, generator(1)), masks)


@pytest.mark.parametrize('name', DRAWN)
@pytest.mark.parametrize('ratio',
                         [-0.1, 1., 1.5, math.nan, math.inf, -math.inf, 0.99])
def test_bad_ratios(name, ratio):
    sampler = TASK_UTILS.build(dict(type=f'greenmim.{name}'))
    message = 'visible unit' if ratio == 0.99 else 'mask_ratio < 1'
    with pytest.raises(ValueError, match=message):
        sampler(1, (4, 4), ratio)


@pytest.mark.parametrize('grid, ratio, kept', [
    ((7, 7), 0.75, 12),
    ((6, 6), 0.6, 14),
    ((2, 5), 0.9, 1),
    ((2, 5), 0.7, 3),
    ((10, 10), 0.99, 1),
    ((1, 1), 0., 1),
    ((3, 5), 0., 15),
])
def test_numbers_of_visible_units(grid, ratio, kept):
    mask = random_mask(5, grid, ratio)
    assert mask.device.type == 'cpu'
    assert (~mask).flatten(1).sum(1).tolist() == [kept] * 5
    assert num_visible_units(grid[0] * grid[1], ratio) == kept


def test_random_units_are_hidden_evenly_and_independently():
    """Every unit, and every pair of units, as often as chance says."""
    num = 20000
    mask = random_mask(num, (2, 3), 0.5, generator()).flatten(1).double()
    hidden = mask.mean(0)
    assert (hidden - 0.5).abs().max() <= 5 * 0.5 / num**0.5
    both = mask.T @ mask / num
    pairs = both[~torch.eye(6, dtype=torch.bool)]
    assert (pairs - 0.5 * 2 / 5).abs().max() <= 5 * 0.4 / num**0.5


class TestBlocks:

    @staticmethod
    def borders(masks):
        """Pairs of neighbours of which one is hidden, in a mask."""
        down = (masks[:, 1:] != masks[:, :-1]).flatten(1).sum(1)
        across = (masks[:, :, 1:] != masks[:, :, :-1]).flatten(1).sum(1)
        return (down + across).float().mean()

    def test_are_more_connected_than_chance(self):
        blocks = BlockMask()(200, (14, 14), 0.5, generator())
        chance = RandomMask()(200, (14, 14), 0.5, generator())
        assert self.borders(blocks) < 0.4 * self.borders(chance)

    def test_a_block_has_the_area_and_aspect_drawn(self):
        """All that is hidden is one block of the smallest area."""
        aspects = set()
        sampler = BlockMask(min_units=16, max_aspect=4)
        for seed in range(300):
            mask = np.zeros((16, 16), dtype=bool)
            hidden = sampler._hide_block(mask, 16, generator(seed))
            rows, cols = mask.any(1).sum(), mask.any(0).sum()
            assert hidden == mask.sum() and 12 <= hidden <= 16
            assert hidden == min(rows * cols, 16)
            aspects.add((rows, cols))
        assert aspects <= {(r, c) for r in range(2, 9) for c in range(2, 9)}
        assert {(4, 4), (2, 8), (8, 2)} <= aspects

    def test_every_unit_is_hidden_at_times_and_no_side_is_preferred(self):
        often = BlockMask()(4000, (7, 7), 0.75, generator()).float().mean(0)
        assert often.min() > 0.3 and often.max() < 0.98
        for turned in (often.flip(0), often.flip(1), often.T):
            assert (often - turned).abs().max() < 0.05

    @pytest.mark.parametrize('kwargs', [
        dict(min_units=0),
        dict(max_aspect=0.5),
    ])
    def test_bad_arguments(self, kwargs):
        with pytest.raises(ValueError, match='>= 1'):
            BlockMask(**kwargs)


class TestUniform:

    @pytest.mark.parametrize('grid', [(8, 6), (2, 2), (14, 14)])
    def test_one_of_each_cell(self, grid):
        masks = UniformMask()(50, grid, 0.75, generator())
        for mask in masks:
            for y in range(0, grid[0], 2):
                for x in range(0, grid[1], 2):
                    assert (~mask[y:y + 2, x:x + 2]).sum() == 1

    @pytest.mark.parametrize('grid, ratio', [((7, 7), 0.75), ((5, 8), 0.75),
                                             ((6, 6), 0.9), ((3, 3), 0.6)])
    def test_at_most_one_of_each_cell_from_some_corner(self, grid, ratio):
        for mask in UniformMask()(50, grid, ratio, generator()):
            assert any(
                all((~view[y:y + 2, x:x + 2]).sum() <= 1
                    for y in range(0, grid[0], 2)
                    for x in range(0, grid[1], 2))
                for view in (mask, mask.flip(0), mask.flip(1),
                             mask.flip(0, 1)))

    @pytest.mark.parametrize('grid', [(7, 7), (8, 8), (5, 6)])
    def test_every_unit_is_seen_about_as_often(self, grid):
        masks = UniformMask()(4000, grid, 0.75, generator())
        often = (~masks).float().mean(0)
        assert often.min() > 0.17 and often.max() < 0.33

    def test_too_low_a_ratio(self):
        with pytest.raises(ValueError, match='use 0.75'):
            UniformMask()(1, (8, 8), 0.7)


class TestGiven:
    mask = [[1, 0, 1], [0, 1, 1]]

    def test_files_and_lists_are_the_same(self, tmp_path):
        array = np.array(self.mask)
        np.save(tmp_path / 'mask.npy', array.astype(bool))
        picture = (array * 255).astype('uint8').repeat(32, 0).repeat(32, 1)
        Image.fromarray(picture).save(tmp_path / 'mask.png')
        for given in (self.mask, array, tmp_path / 'mask.npy',
                      str(tmp_path / 'mask.png')):
            masks = GivenMask([given])(2, (2, 3), 0.1)
            assert masks.tolist() == [array.astype(bool).tolist()] * 2

    def test_one_for_each_grid(self):
        sampler = GivenMask([[[0, 1]] * 3, self.mask, [[1, 0]]])
        assert sampler(1, (2, 3), 0.5).long()[0].tolist() == self.mask
        assert sampler(1, (1, 2), 0.5).tolist() == [[[True, False]]]
        with pytest.raises(ValueError, match=r'\(4, 4\).*\(2, 3\)'):
            sampler(1, (4, 4), 0.5)

    def test_drawn_from_several(self):
        several = torch.eye(4).view(4, 2, 2)
        masks = GivenMask([several])(400, (2, 2), 0.75, generator())
        counts = masks.flatten(1).sum(0)
        assert (masks.flatten(1).sum(1) == 1).all() and counts.min() > 60

    @pytest.mark.parametrize('masks, text', [
        ([[[1, 1], [1, 1]]], 'at least one visible'),
        ([[[0, 2], [1, 1]]], '0 or 1'),
        ([[0, 1]], 'shape'),
        ([[[0, 1], [1]]], 'rows of one length'),
        ([[['a', 'b']]], 'numbers 0 and 1'),
        ([[[[0, 1], [1, 1]], [[0, 0], [1, 1]]]], 'same number'),
        ([], 'list of masks'),
        ('mask.npy', 'list of masks'),
    ])
    def test_bad_masks(self, masks, text):
        with pytest.raises(ValueError, match=text):
            GivenMask(masks)

    def test_a_bad_file_is_named(self, tmp_path):
        np.save(tmp_path / 'bad.npy', np.ones((2, 2)))
        with pytest.raises(ValueError, match='bad.npy'):
            GivenMask([tmp_path / 'bad.npy'])

    @pytest.mark.parametrize('name', ['mask.npy', 'mask.png'])
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path, name):
        with pytest.raises(FileNotFoundError, match=name):
            GivenMask([tmp_path / name])
        for content in (b'', b'no mask'):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=f'{name}.*expected a mask'):
                GivenMask([tmp_path / name])
