# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch

from greenmim.models.masking import random_mask
from greenmim.models.target_generators import (best_width,
                                               fill_from_neighbours,
                                               naive_fillings)
from greenmim.models.target_generators.fill_units import WIDTHS
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
    """Against sums over the visible pixels, one masked pixel at a time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 2, 2 * SIZE, 3 * SIZE, generator=generator)
    images = images.double()
    mask = torch.tensor([[[True, False, True], [False, True, True]],
                         [[True, False, True], [True, True, False]]])
    layout = VisibleLayout.from_mask(mask)
    hidden = mask.repeat_interleave(SIZE, 1).repeat_interleave(SIZE, 2)
    spoilt = images.masked_fill(hidden[:, None], float('nan'))
    found = naive_fillings(spoilt, layout, SIZE, width=0.7)
    for b in range(2):
        places = (~hidden[b]).nonzero().double()
        pixels = images[b][:, ~hidden[b]]
        torch.testing.assert_close(
            found['mean'][b, :, 0, 0], pixels.mean(1), rtol=1e-12, atol=1e-12)
        for place in hidden[b].nonzero():
            squared = (places - place).square().sum(1)
            weights = torch.exp(-squared / 2 / (0.7 * SIZE)**2)
            torch.testing.assert_close(
                found['smooth'][b, :, place[0], place[1]],
                pixels @ weights / weights.sum(),
                rtol=1e-9,
                atol=1e-12)


def test_far_from_all_visible_pixels_is_their_mean():
    images = torch.randn(1, 1, SIZE, 100 * SIZE)
    mask = torch.ones(1, 1, 100, dtype=torch.bool)
    mask[..., 0] = False
    found = naive_fillings(images, VisibleLayout.from_mask(mask), SIZE, .25)
    torch.testing.assert_close(found['smooth'][..., -1],
                               images[..., :SIZE].mean().expand(1, 1, SIZE))


@pytest.mark.parametrize('kind', ['noise', 'wave'])
def test_the_best_width_follows_the_images(kind):
    """A wave is continued from nearby, noise tells of nothing nearby."""
    side = 8 * SIZE
    generator = torch.Generator().manual_seed(0)
    wave = torch.sin(torch.arange(side) / side * 2 * torch.pi)
    noise = torch.randn(1, 3, side, side, generator=generator)
    images = noise if kind == 'noise' else wave.expand(1, 3, side, side)
    layout = VisibleLayout.from_mask(random_mask(1, (8, 8), 0.5, generator))
    width = best_width([(images, layout)], SIZE)
    assert width == WIDTHS[-1] if kind == 'noise' else width < WIDTHS[-1]
