# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch
from mmcv.cnn.bricks.transformer import PatchMerging
from torch.nn import functional as F

from greenmim.weights.layouts import MERGE_ORDERS, merge_permutation

# Neighbours (dy, dx) in the order in which their channels are joined.
NEIGHBOURS = {
    'microsoft': [(0, 0), (1, 0), (0, 1), (1, 1)],
    'greenmim-2022': [(0, 0), (0, 1), (1, 0), (1, 1)],
}


def merge_by_loops(x_CHW, order):
    """All merged vectors of a map in row-major order, shape (L / 4, 4C)."""
    C, H, W = x_CHW.shape
    merged = []
    for y in range(0, H, 2):
        for x in range(0, W, 2):
            vector = []
            if order == 'openmmlab':
                for c in range(C):
                    for dy in range(2):
                        for dx in range(2):
                            vector.append(x_CHW[c, y + dy, x + dx])
            else:
                for dy, dx in NEIGHBOURS[order]:
                    for c in range(C):
                        vector.append(x_CHW[c, y + dy, x + dx])
            merged.append(torch.stack(vector))
    return torch.stack(merged)


def test_openmmlab_order_is_that_of_unfold():
    x = torch.randn(3, 4, 6)
    expected = F.unfold(x[None], kernel_size=2, stride=2)[0].T
    assert torch.equal(merge_by_loops(x, 'openmmlab'), expected)


@pytest.mark.parametrize('source', MERGE_ORDERS)
@pytest.mark.parametrize('target', MERGE_ORDERS)
@pytest.mark.parametrize('channels', [1, 3, 8])
def test_permutation_turns_one_order_into_another(source, target, channels):
    x = torch.randn(channels, 4, 6)
    permutation = merge_permutation(channels, source, target)
    actual = merge_by_loops(x, source)[:, permutation]
    assert torch.equal(actual, merge_by_loops(x, target))
    back = merge_permutation(channels, target, source)
    assert torch.equal(permutation[back], torch.arange(4 * channels))


@pytest.mark.parametrize('source', MERGE_ORDERS)
def test_permuted_parameters_give_the_same_merging(source):
    """Norm and reduction of another order, run by MMCV's PatchMerging."""
    x = torch.randn(5, 4, 6, dtype=torch.float64)
    weight, bias = torch.randn(2, 20, dtype=torch.float64)
    reduction = torch.randn(10, 20, dtype=torch.float64)
    merged = merge_by_loops(x, source)
    expected = F.layer_norm(merged, (20, ), weight, bias) @ reduction.T

    order = merge_permutation(5, source)
    layer = PatchMerging(5, 10).double()
    layer.norm.weight.data.copy_(weight[order])
    layer.norm.bias.data.copy_(bias[order])
    layer.reduction.weight.data.copy_(reduction[:, order])
    actual, _ = layer(x.flatten(1).T[None], (4, 6))
    torch.testing.assert_close(actual[0], expected, rtol=0, atol=1e-12)


def test_unknown_order():
    with pytest.raises(ValueError, match="expected a merge order.*'timm'"):
        merge_permutation(4, 'timm')
