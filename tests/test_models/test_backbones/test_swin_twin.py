# Copyright (c) greenmim authors. All rights reserved.
"""The dense twin of Swin against MMPretrain's own code."""
import math
from functools import partial

import pytest
import torch
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor

from tests.backbones.checks import draw_mask, randomise
from tests.backbones.swin import SWIN
from tests.backbones.swin_twin import DenseSwinTwin


def _mask_of_windows(visible: Tensor,
                     hw_shape,
                     window_size: int,
                     shift_size: int,
                     device=None) -> Tensor:
    """The parent's attention mask, with masked and padding keys blocked."""
    (height, width), shift = visible.shape, (-shift_size, -shift_size)
    usable = torch.zeros(1, *hw_shape, 1)
    usable[0, :height, :width, 0] = visible
    keys = ShiftWindowMSA.window_partition(
        usable.roll(shift, (1, 2)), window_size).view(-1, 1, window_size**2)
    blocked = keys == 0
    if shift_size:
        blocked = blocked | ShiftWindowMSA.get_attn_mask(
            hw_shape, window_size, shift_size).ne(0)
    # a token always sees itself, so that no row is empty
    blocked = blocked & ~torch.eye(window_size**2, dtype=torch.bool)
    return torch.zeros(blocked.shape).masked_fill(blocked, -math.inf)


@pytest.mark.parametrize('shape', [
    'w4-128x128', 'w4-128x128-pad', 'w6-64x160-pad', 'w7-160x96-pad',
    'w12-128x96-pad', 'w14-32x32-pad'
])
def test_the_twin_is_the_parent_with_masked_keys(shape):
    """The twin's formula of windows is the parent's padding and roll."""
    size, kwargs = SWIN.cases[shape]
    parent = randomise(SWIN.parent(**{**SWIN.micro, **kwargs})).double()
    parent.eval()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    mask = draw_mask('shared', 2, (size[0] // 32, size[1] // 32))
    expected = DenseSwinTwin(parent)(images, mask)
    for i, stage in enumerate(parent.stages):
        side = 8 // 2**i
        visible = ~mask[0].repeat_interleave(side, 0).repeat_interleave(
            side, 1)
        for block in stage.blocks:
            block.attn.get_attn_mask = partial(_mask_of_windows, visible)
    dense, = parent(images)
    actual = dense.permute(0, 2, 3, 1)[:, ~mask[0]]
    assert (actual - expected).abs().max() <= 1e-10
