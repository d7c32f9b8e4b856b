# Copyright (c) greenmim authors. All rights reserved.
"""Layouts and token orders against explicit loops."""
import dataclasses
import math

import pytest
import torch
from mmcv.cnn.bricks.transformer import PatchMerging

from greenmim.models.masking import random_mask
from greenmim.ops import (VisibleLayout, gather_units, merge_tokens,
                          patches_of_units, patchify, unit_grid, unpatchify)

MASK = torch.tensor([[[1, 0, 1], [0, 0, 1]], [[0, 1, 1], [1, 0, 0]]]).bool()


class TestVisibleLayout:

    def test_fields(self):
        layout = VisibleLayout.from_mask(MASK)
        assert torch.equal(layout.visible, ~MASK)
        assert layout.units.tolist() == [[1, 3, 4], [0, 4, 5]]
        assert layout.units.dtype == torch.int64
        assert layout.restore.tolist() == [[3, 0, 3, 1, 2, 3],
                                           [0, 3, 3, 3, 1, 2]]
        assert layout.grid == (2, 3)
        assert layout.num_masks == 2
        assert layout.num_visible == 3
        assert layout.num_units == 6
        assert torch.equal(layout.masked, MASK)

    def test_padding_is_not_masked(self):
        valid = torch.ones_like(MASK)
        valid[1, :, 2] = False
        mask = MASK.clone()
        mask[1] = torch.tensor([[0, 0, 1], [1, 0, 1]])
        layout = VisibleLayout.from_mask(mask, valid=valid)
        assert layout.masked[1].tolist() == [[False, False, False],
                                             [True, False, False]]
        assert torch.equal(layout.masked[0], mask[0])

    @pytest.mark.parametrize('grid', [(1, 1), (1, 7), (5, 1), (3, 4)])
    def test_fields_by_loops(self, grid):
        torch.manual_seed(sum(grid))
        mask = random_mask(4, grid, 0.6 if grid != (1, 1) else 0.)
        layout = VisibleLayout.from_mask(mask, grid)
        for m in range(4):
            units = [
                row * grid[1] + col for row in range(grid[0])
                for col in range(grid[1]) if not mask[m, row, col]
            ]
            assert layout.units[m].tolist() == units
            restore = [
                units.index(unit) if unit in units else len(units)
                for unit in range(grid[0] * grid[1])
            ]
            assert layout.restore[m].tolist() == restore

    def test_it_is_frozen_and_handed_back(self):
        layout = VisibleLayout.from_mask(MASK)
        assert VisibleLayout.from_mask(layout) is layout
        assert VisibleLayout.from_mask(layout, (2, 3)) is layout
        with pytest.raises(dataclasses.FrozenInstanceError):
            layout.units = None
        with pytest.raises(ValueError, match='grid'):
            VisibleLayout.from_mask(layout, (3, 2))

    def test_it_does_not_change_with_its_mask(self):
        mask = MASK.clone()
        layout = VisibleLayout.from_mask(mask)
        mask.logical_not_()
        assert torch.equal(layout.visible, ~MASK)
        assert layout.units.tolist() == [[1, 3, 4], [0, 4, 5]]

    @pytest.mark.parametrize('dtype', [
        torch.uint8, torch.int32, torch.int64, torch.float16, torch.float32,
        torch.float64, torch.bfloat16
    ])
    def test_numbers_that_are_0_or_1(self, dtype):
        layout = VisibleLayout.from_mask(MASK.to(dtype))
        assert layout.visible.dtype == torch.bool
        assert torch.equal(layout.visible, ~MASK)

    @pytest.mark.parametrize('times', [2, 4, 8])
    def test_a_finer_mask_is_reduced(self, times):
        finer = MASK.repeat_interleave(times, 1).repeat_interleave(times, 2)
        layout = VisibleLayout.from_mask(finer, (2, 3))
        assert torch.equal(layout.visible, ~MASK)

    @pytest.mark.parametrize('row', [0, 1])
    @pytest.mark.parametrize('col', [0, 1])
    def test_a_mixed_unit_is_refused(self, row, col):
        finer = MASK.repeat_interleave(2, 1).repeat_interleave(2, 2)
        finer[1, 2 + row, 4 + col] = ~finer[1, 2 + row, 4 + col]
        with pytest.raises(ValueError, match='partly masked'):
            VisibleLayout.from_mask(finer, (2, 3))

    @pytest.mark.parametrize('mask, error, match', [
        (None, TypeError, 'NoneType'),
        (False, TypeError, 'bool'),
        ([[[True, False]]], TypeError, 'list'),
        (MASK.numpy(), TypeError, 'ndarray'),
        (MASK[0], ValueError, 'shape'),
        (MASK[None], ValueError, 'shape'),
        (MASK.flatten(1), ValueError, 'shape'),
        (MASK[:0], ValueError, 'shape'),
        (MASK[:, :0], ValueError, 'shape'),
        (MASK * 2, ValueError, '0 or 1'),
        (MASK * 0.5, ValueError, '0 or 1'),
        (MASK.float() - 1, ValueError, '0 or 1'),
        (MASK * math.nan, ValueError, '0 or 1'),
        (torch.ones_like(MASK), ValueError, 'at least one'),
        (torch.tensor([[[True, False]], [[False, False]]
                       ]), ValueError, r'same number.*\[1, 2\]'),
    ])
    def test_bad_masks(self, mask, error, match):
        with pytest.raises(error, match=match):
            VisibleLayout.from_mask(mask)

    @pytest.mark.parametrize('grid', [(3, 2), (2, 2), (1, 3), (4, 6), (6, 1)])
    def test_another_grid(self, grid):
        with pytest.raises(ValueError, match=r'grid.*got \(2, 3\)'):
            VisibleLayout.from_mask(MASK, grid)
        # Twice as many rows but not columns is no finer mask.
        with pytest.raises(ValueError, match='grid'):
            VisibleLayout.from_mask(MASK.repeat_interleave(2, 1), (2, 3))

    def test_check_batch(self):
        layout = VisibleLayout.from_mask(MASK)
        layout.check_batch(2)
        VisibleLayout.from_mask(MASK[:1]).check_batch(7)
        for batch in (1, 3, 4):
            with pytest.raises(ValueError, match='got 2'):
                layout.check_batch(batch)


@pytest.mark.parametrize('size, grid', [((224, 224), (7, 7)),
                                        ((32, 96), (1, 3))])
def test_unit_grid(size, grid):
    assert unit_grid(size, 32) == grid


@pytest.mark.parametrize('size', [(224, 225), (16, 32), (0, 32), (31, 33)])
def test_unit_grid_of_other_sizes(size):
    with pytest.raises(ValueError, match=r'multiples.*32.*got.*resize'):
        unit_grid(size, 32)


def visible_numbers(num_masks):
    return VisibleLayout.from_mask(MASK[:num_masks]).units


@pytest.mark.parametrize('num_masks', [1, 2])
def test_gather_units(num_masks):
    units = visible_numbers(num_masks)
    x = torch.randn(2, 6, 4, 5)
    out = gather_units(x, units)
    assert out.shape == (2, 3, 4, 5)
    for b in range(2):
        for k in range(3):
            unit = units[b % num_masks, k]
            assert torch.equal(out[b, k], x[b, unit])


@pytest.mark.parametrize('num_masks', [1, 2])
@pytest.mark.parametrize('contiguous', [True, False])
def test_patches_of_units(num_masks, contiguous):
    units = visible_numbers(num_masks)
    images = torch.randn(2, 3, 16, 24)
    if not contiguous:
        images = images.contiguous(memory_format=torch.channels_last)
    patches = patches_of_units(images, units, unit_size=8, patch_size=2)
    assert patches.shape == (2, 3, 16, 12)
    for b in range(2):
        for k in range(3):
            row, col = divmod(int(units[b % num_masks, k]), 3)
            for token in range(16):
                top = row * 8 + token // 4 * 2
                left = col * 8 + token % 4 * 2
                expected = images[b, :, top:top + 2, left:left + 2]
                assert torch.equal(patches[b, k, token], expected.flatten())


@pytest.mark.parametrize('side', [2, 4, 8])
def test_merge_tokens_is_the_parents_merging(side):
    """Same order as OpenMMLab's PatchMerging on a map of one unit."""
    x = torch.randn(2, 3, side * side, 5)
    merged = merge_tokens(x)
    merging = PatchMerging(5, 20, norm_cfg=None)
    merging.reduction.weight.data = torch.eye(20)
    for k in range(3):
        expected, _ = merging(x[:, k], (side, side))
        assert torch.equal(merged[:, k], expected)


@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('size', [(8, 8), (8, 16), (24, 8)])
def test_patchify_by_loops(channels, size):
    images = torch.randn(2, channels, *size)
    patches = patchify(images, 8)
    rows, cols = size[0] // 8, size[1] // 8
    assert patches.shape == (2, rows * cols, 64 * channels)
    for unit in range(rows * cols):
        row, col = divmod(unit, cols)
        for y in range(8):
            for x in range(8):
                for c in range(channels):
                    actual = patches[:, unit, (y * 8 + x) * channels + c]
                    pixel = images[:, c, row * 8 + y, col * 8 + x]
                    assert torch.equal(actual, pixel)
    assert torch.equal(unpatchify(patches, 8, (rows, cols)), images)


def test_patchify_refuses_other_sizes():
    with pytest.raises(ValueError, match='multiples'):
        patchify(torch.zeros(1, 3, 8, 12), 8)


@pytest.mark.parametrize('shape, grid', [((1, 6, 192), (2, 2)),
                                         ((1, 4, 191), (2, 2)),
                                         ((1, 4, 0), (2, 2))])
def test_unpatchify_refuses_other_shapes(shape, grid):
    with pytest.raises(ValueError, match='expected vectors.*got'):
        unpatchify(torch.zeros(shape), 8, grid)
