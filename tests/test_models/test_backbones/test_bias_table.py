# Copyright (c) greenmim authors. All rights reserved.
import math

import pytest
import torch

from greenmim.models.backbones.swin import bias_table_window, resize_bias_table


def cubic(x):
    """Keys' kernel with a = -0.75, as PyTorch documents bicubic."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.


def resize_slowly(table, window):
    """One entry at a time, in Python's floats."""
    old, new = 2 * bias_table_window(table) - 1, 2 * window - 1
    out = torch.zeros(new**2, table.shape[1], dtype=torch.float64)
    for y in range(new):
        for x in range(new):
            v, u = ((at + 0.5) * old / new - 0.5 for at in (y, x))
            for i in range(math.floor(v) - 1, math.floor(v) + 3):
                for j in range(math.floor(u) - 1, math.floor(u) + 3):
                    row, column = (min(max(at, 0), old - 1) for at in (i, j))
                    out[y * new +
                        x] += cubic(v - i) * cubic(u -
                                                   j) * table[row * old +
                                                              column].double()
    return out


@pytest.mark.parametrize('old, new', [(4, 7), (7, 4), (3, 12), (2, 1)])
def test_equals_the_slow_twin(old, new):
    table = torch.randn((2 * old - 1)**2, 3, dtype=torch.float64)
    resized = resize_bias_table(table, new)
    assert resized.shape == ((2 * new - 1)**2, 3)
    assert torch.allclose(resized, resize_slowly(table, new), atol=1e-12)


def test_same_window_is_the_same_table():
    table = torch.randn(169, 3)
    assert resize_bias_table(table, 7) is table


@pytest.mark.parametrize('shape', [(168, 3), (144, 3), (169, )])
def test_other_tensors_are_refused(shape):
    with pytest.raises(ValueError, match=r'expected a bias table .* got \(1'):
        resize_bias_table(torch.zeros(shape), 4)
