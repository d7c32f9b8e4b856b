# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch

from greenmim.models.masking import random_mask
from greenmim.models.target_generators import (fill_from_neighbours,
                                               naive_fillings)
from greenmim.ops import VisibleLayout

SIZE = 8


def unit(images, b, row, col):
    """A view of one unit, (C, SIZE, SIZE)."""
    return images[b, :, row * SIZE:(row + 1) * SIZE,
                  col * SIZE:(col + 1) * SIZE]


@pytest.mark.parametrize('num_masks', [1, 2])
@pytest.mark.parametrize('channels', [1, 3, 13])
def test_mean_and_deviation_are_weighted_averages(num_masks, channels):
    rows, cols = grid = 3, 4
    generator = torch.Generator().manual_seed(0)
    scale = 1 + torch.arange(rows * SIZE)[:, None] + torch.arange(cols * SIZE)
    images = scale * torch.randn(
        2, channels, rows * SIZE, cols * SIZE, generator=generator).double()
    mask = random_mask(num_masks, grid, 0.6, generator)
    layout = VisibleLayout.from_mask(mask)
    filled = fill_from_neighbours(images, layout, SIZE)
    for b in range(2):
        hidden = mask[b % num_masks]
        for row in range(rows):
            for col in range(cols):
                if not hidden[row, col]:
                    assert torch.equal(
                        unit(filled, b, row, col), unit(images, b, row, col))
                    continue
                total = mean = std = 0.
                for r, c in (~hidden).nonzero().tolist():
                    weight = ((row - r)**2 + (col - c)**2)**-2
                    total += weight
                    mean += weight * unit(images, b, r, c).mean()
                    std += weight * unit(images, b, r, c).std()
                found = unit(filled, b, row, col)
                assert found.mean().item() == pytest.approx(
                    (mean / total).item())
                assert found.std().item() == pytest.approx(
                    (std / total).item())


def test_masked_pixels_are_never_read():
    mask = torch.tensor([[[True, False], [True, True]]])
    layout = VisibleLayout.from_mask(mask)
    images = torch.randn(1, 3, 2 * SIZE, 2 * SIZE)
    expected = fill_from_neighbours(images, layout, SIZE)
    hidden = mask.repeat_interleave(SIZE, 1).repeat_interleave(SIZE, 2)
    spoilt = images.masked_fill(hidden[:, None], float('nan'))
    assert torch.equal(fill_from_neighbours(spoilt, layout, SIZE), expected)


def test_flat_units_stay_flat():
    layout = VisibleLayout.from_mask(torch.tensor([[[False, True]]]))
    images = torch.full((1, 1, SIZE, 2 * SIZE), 3.)
    images[..., SIZE:] = torch.randn(SIZE, SIZE)
    filled = fill_from_neighbours(images, layout, SIZE)
    torch.testing.assert_close(filled, torch.full_like(images, 3.))


def test_naive_fillings():
    """A ramp is interpolated; the mean is that of visible pixels alone."""
    ramp = torch.arange(96.).expand(1, 2, 32, 96).clone()
    mask = torch.tensor([[[False, True, False]]])
    ramp[..., 32:64] = float('nan')
    found = naive_fillings(ramp, VisibleLayout.from_mask(mask), 32)
    assert (found['mean'] == 47.5).all()
    smooth = found['smooth']
    torch.testing.assert_close(smooth[..., 16:80],
                               torch.arange(16., 80).expand(1, 2, 32, 64))
