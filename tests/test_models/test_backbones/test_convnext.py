# Copyright (c) greenmim authors. All rights reserved.
"""ConvNeXt against MMPretrain's SparK, and what it refuses."""
import pytest
import torch
from mmpretrain.models import SparseConvNeXt
from mmpretrain.models.utils import SparseHelper

from greenmim.models import GreenMIMConvNeXt
from greenmim.ops import VisibleLayout, gather_units, units_of_map
from tests.backbones.checks import draw_mask, randomise

ARCH = dict(depths=[1, 2, 1, 1], channels=[8, 8, 16, 16])


@pytest.mark.parametrize('mask_kind', ['shared', 'image'])
@pytest.mark.parametrize('linear_pw_conv', [True, False])
def test_v1_equals_spark(mask_kind, linear_pw_conv, monkeypatch):
    """SparK's encoder has all but the last norm."""
    kwargs = dict(arch=ARCH, linear_pw_conv=linear_pw_conv)
    model = randomise(GreenMIMConvNeXt(**kwargs)).double()
    spark = SparseConvNeXt(
        **kwargs, out_indices=[3], gap_before_output=False).double()
    state = model.state_dict()
    state = {k: v for k, v in state.items() if not k.startswith('norm3.')}
    spark.load_state_dict(state, strict=True)

    images = torch.randn(2, 3, 160, 160, dtype=torch.float64)
    mask = draw_mask(mask_kind, 2, (5, 5))
    monkeypatch.setattr(SparseHelper, '_cur_active',
                        (~mask).expand(2, -1, -1)[:, None])
    expected = model.norm3(spark(images)[0])
    units = VisibleLayout.from_mask(mask).units
    expected = gather_units(units_of_map(expected, (5, 5)), units)
    actual = model(images, mask)
    assert (actual - expected.flatten(1, 2)).abs().max() <= 1e-10
