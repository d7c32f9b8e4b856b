# Copyright (c) greenmim authors. All rights reserved.
import math

import pytest
import torch

from greenmim.ops import sincos_positions


@pytest.mark.parametrize('grid', [(1, 1), (7, 7), (2, 5), (6, 1)])
def test_positions_by_loops(grid):
    actual = sincos_positions(grid, 24, torch.float64, torch.device('cpu'))
    assert actual.shape == (grid[0] * grid[1], 24)
    for y in range(grid[0]):
        for x in range(grid[1]):
            for i in range(6):
                omega = 1 / 10000**(i / 6)
                expected = [
                    math.sin(x * omega),
                    math.cos(x * omega),
                    math.sin(y * omega),
                    math.cos(y * omega)
                ]
                got = actual[y * grid[1] + x, i::6].tolist()
                assert got == pytest.approx(expected, abs=1e-12)


def test_positions_in_fp32_are_close_to_fp64():
    # 64 units are the side of a 2048-pixel image.
    fp64 = sincos_positions((64, 64), 512, torch.float64, torch.device('cpu'))
    fp32 = sincos_positions((64, 64), 512, torch.float32, torch.device('cpu'))
    torch.testing.assert_close(fp32.double(), fp64, rtol=0, atol=1e-5)
