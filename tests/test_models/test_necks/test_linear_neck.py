# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch
from torch.nn import functional as F

from greenmim.models import LinearNeck
from greenmim.models.masking import random_mask
from greenmim.ops import patchify, units_of_map

ALL = torch.zeros(1, 2, 3, dtype=torch.bool)


@pytest.mark.parametrize('side', [1, 2, 4])
def test_equals_a_pixel_shuffle(side):
    """SimMIM's decoder: a 1x1 convolution and a pixel shuffle on the map."""
    torch.manual_seed(0)
    neck = LinearNeck(12, 8 * 8 * 3, tokens_side=side, unit_size=8)
    x = torch.randn(2, 12, 2 * side, 3 * side)
    latent = units_of_map(x, (2, 3)).flatten(1, 2)
    pixels = 8 // side
    order = torch.arange(pixels**2 * 3).view(pixels, pixels, 3)
    order = order.permute(2, 0, 1).flatten()
    images = F.pixel_shuffle(
        F.conv2d(x, neck.linear.weight[order, :, None, None],
                 neck.linear.bias[order]), pixels)
    torch.testing.assert_close(neck(latent, ALL), patchify(images, 8))


def test_refuses_what_does_not_fit():
    neck = LinearNeck(12, 192, tokens_side=2, unit_size=8)
    with pytest.raises(ValueError, match='24 tokens, 2x2 a unit, got 6'):
        neck(torch.zeros(2, 6, 12), ALL)
    with pytest.raises(ValueError, match='3 visible ones'):
        neck(torch.zeros(2, 12, 12), random_mask(2, (2, 3), 0.5))
    with pytest.raises(ValueError, match='tokens_side to divide unit_size'):
        LinearNeck(12, 192, tokens_side=3, unit_size=8)
    with pytest.raises(ValueError, match='divides out_channels'):
        LinearNeck(12, 100, tokens_side=2, unit_size=8)
