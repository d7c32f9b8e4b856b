# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch

from greenmim.ops import patchify, unpatchify


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
