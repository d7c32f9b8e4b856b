# Copyright (c) greenmim authors. All rights reserved.
import math

import numpy as np
import pytest
import torch

from greenmim.evaluation import effective_rank, relative_spread


def with_singular_values(values, rows=20):
    """Centred features (rows, C) of given singular values."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, len(values), generator=generator).double()
    left = torch.linalg.qr(left - left.mean(0))[0]
    right = torch.randn(9, len(values), generator=generator).double()
    right = torch.linalg.qr(right)[0]
    return left * torch.tensor(values).double() @ right.T


@pytest.mark.parametrize('values, expected', [
    ([1., 1., 1., 1.], 4.),
    ([5.], 1.),
    ([3., 1.], math.exp(.75 * math.log(4 / 3) + .25 * math.log(4))),
])
def test_known_singular_values(values, expected):
    features = with_singular_values(values)
    assert effective_rank(features) == pytest.approx(expected)
    # neither the mean nor the scale counts
    assert effective_rank(1e3 * features + 7) == pytest.approx(expected)


def test_equals_the_definition():
    features = np.random.default_rng(0).normal(size=(12, 7))
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    shares = values / values.sum()
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert effective_rank(torch.tensor(features)) == pytest.approx(expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_features_that_are_alike(dtype):
    features = torch.randn(1, 9).to(dtype).expand(20, 9)
    assert effective_rank(features) == 0
    assert relative_spread(features) < 1e-12
    assert effective_rank(torch.zeros(3, 4)) == 0
    assert relative_spread(torch.zeros(3, 4)) == 0


def test_spread():
    features = torch.tensor([[3., 4.], [3., -4.]])
    assert relative_spread(features) == pytest.approx(4 / 5)


def test_bad_features():
    assert math.isnan(effective_rank(torch.full((3, 2), float('nan'))))
    with pytest.raises(ValueError, match=r'got \(1, 5\)'):
        effective_rank(torch.ones(1, 5))
