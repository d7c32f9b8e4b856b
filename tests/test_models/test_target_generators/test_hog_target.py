# Copyright (c) greenmim authors. All rights reserved.
import math

import numpy as np
import pytest
import torch

from greenmim.models import GreenMIMHead, HOGTarget

KERNEL = ((1, 0, -1), (2, 0, -2), (1, 0, -1))


def hog_by_loops(image, unit, norm, bins=9, cell=8):
    """The values of one image (C, H, W), pixel by pixel."""
    channels, height, width = image.shape
    hist = np.zeros((channels, bins, height // cell, width // cell))

    def mirror(i, size):
        return 1 if i < 0 else size - 2 if i == size else i

    for c, y, x in np.ndindex(*image.shape):
        gx = gy = 0.
        for dy, dx in np.ndindex(3, 3):
            value = image[c,
                          mirror(y + dy - 1, height),
                          mirror(x + dx - 1, width)]
            gx += KERNEL[dy][dx] * value
            gy += KERNEL[dx][dy] * value
        where = math.floor(math.atan2(gx, gy) / math.pi * bins) % bins
        hist[c, where, y // cell, x // cell] += math.hypot(gx, gy)
    if norm:
        length = np.sqrt((hist**2).sum(1, keepdims=True))
        hist = hist / np.maximum(length, 1e-12)
    side = unit // cell
    units = []
    for row in range(height // unit):
        for col in range(width // unit):
            units.append([
                hist[c, k, row * side + dy, col * side + dx]
                for c, k, dy, dx in np.ndindex(channels, bins, side, side)
            ])
    return np.array(units)


@pytest.mark.parametrize('channels, size, unit, norm', [
    (3, (64, 32), 32, True),
    (1, (32, 48), 16, False),
    (4, (16, 8), 8, True),
])
def test_equals_a_loop_over_pixels(channels, size, unit, norm):
    torch.manual_seed(0)
    images = torch.randn(2, channels, *size, dtype=torch.float64)
    images[0, 0, :9, :9] = 0.5  # a cell without gradients
    values = HOGTarget(unit, norm)(images)
    expected = np.stack(
        [hog_by_loops(image.numpy(), unit, norm) for image in images])
    assert values.shape == expected.shape
    assert np.abs(values.numpy() - expected).max() < 1e-12


def test_autocast_changes_no_bit():
    images = torch.randn(2, 3, 64, 64)
    head = GreenMIMHead(target=dict(type='greenmim.HOGTarget'))
    expected = head.construct_target(images)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        values = head.construct_target(images)
        halves = head.construct_target(images.bfloat16())
    assert torch.equal(values, expected)
    assert values.dtype == halves.dtype == torch.float32


def test_no_gradient_reaches_the_images():
    images = torch.zeros(1, 3, 32, 32, requires_grad=True)
    assert not HOGTarget()(images).requires_grad


@pytest.mark.parametrize('horizontal', [True, False])
def test_bars_lie_along_edges(horizontal):
    images = torch.zeros(1, 1, 32, 32)
    if horizontal:
        images[:, :, 4:] = 1.
    else:
        images[..., 4:] = 1.
    target = HOGTarget()
    drawn = target.to_images(target(images), images)
    assert drawn.shape == images.shape
    # The edge runs through the first row (or column) of cells alone.
    cells = drawn[0, 0] if horizontal else drawn[0, 0].t()
    assert not cells[8:].any()
    cell = cells[:8, :8]
    assert cell[3:5].sum() > 0.7 * cell.sum() > 0


def test_cells_and_units_keep_their_places():
    """A glyph is drawn where its cell is, in its channel."""
    images = torch.zeros(2, 3, 64, 96)
    target = HOGTarget()
    pred = target(images)
    # unit (1, 2), channel 1, bin 4, cell (2, 3)
    pred[1, 5, (1 * 9 + 4) * 16 + 4 * 2 + 3] = 1.
    drawn = target.to_images(pred, images)
    y, x = 32 + 16, 64 + 24
    assert drawn[1, 1, y:y + 8, x:x + 8].sum() > 0
    drawn[1, 1, y:y + 8, x:x + 8] = 0.
    assert not drawn.any()


def test_cells_must_divide_units():
    with pytest.raises(ValueError, match='multiple of cell_size=8'):
        HOGTarget(unit_size=20)
    with pytest.raises(ValueError, match='multiples of the mask unit'):
        HOGTarget()(torch.zeros(1, 3, 40, 32))
