# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch
from torch.nn import functional as F

from greenmim.models import LowFrequencyTarget


@pytest.mark.parametrize('norm', [True, False])
@pytest.mark.parametrize('factor', [1, 2, 4])
def test_by_loops(factor, norm):
    images = torch.randn(2, 3, 16, 24)
    target = LowFrequencyTarget(8, factor, norm)(images)
    side = 8 // factor
    assert target.shape == (2, 6, side * side * 3)
    for b in range(2):
        for unit in range(6):
            values = []
            for y in range(side):
                for x in range(side):
                    top = unit // 3 * 8 + y * factor
                    left = unit % 3 * 8 + x * factor
                    square = images[b, :, top:top + factor, left:left + factor]
                    values += [channel.mean() for channel in square]
            values = torch.stack(values)
            if norm:
                values = (values - values.mean()) / (values.var() +
                                                     1e-6).sqrt()
            torch.testing.assert_close(target[b, unit], values)


@pytest.mark.parametrize('norm', [True, False])
def test_drawn_targets_are_the_averaged_images(norm):
    target = LowFrequencyTarget(8, 4, norm)
    images = torch.randn(2, 3, 16, 24)
    drawn = target.to_images(target(images), images)
    assert drawn.shape == images.shape
    torch.testing.assert_close(
        drawn,
        F.avg_pool2d(images, 4).repeat_interleave(4,
                                                  2).repeat_interleave(4, 3),
        rtol=1e-5,
        atol=1e-5)
    assert target.uses_target_statistics == norm


@pytest.mark.parametrize('factor, norm', [(3, False), (0, False), (8, True)])
def test_bad_factor(factor, norm):
    with pytest.raises(ValueError, match='factor'):
        LowFrequencyTarget(8, factor, norm)
