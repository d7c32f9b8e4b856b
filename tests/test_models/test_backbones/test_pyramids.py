# Copyright (c) greenmim authors. All rights reserved.
"""What Twins and PVT v2 have beside the common tests."""
import pytest
import torch
from mmpretrain.models import SVT
from torch import nn

from greenmim.models import GreenMIMSVT, PyramidVisionTransformerV2
from tests.backbones.twins import svt_arch

SVT_ARCH = svt_arch([7, 7, 7, 7])


def test_every_layer_norm_of_twins_gets_its_eps():
    norm = dict(type='LN', eps=1e-6)
    model = GreenMIMSVT(SVT_ARCH, norm_cfg=norm, patch_norm_cfg=norm)
    assert {m.eps
            for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    model = GreenMIMSVT(SVT_ARCH, norm_cfg=norm)
    assert {embed.norm.eps for embed in model.patch_embeds} == {1e-5}


@pytest.mark.parametrize('arch, millions', [('b0', 3.4), ('b1', 13.5),
                                            ('b2', 24.8), ('b3', 44.7),
                                            ('b4', 62.0), ('b5', 81.4)])
def test_pvt_has_the_parameters_of_the_paper(arch, millions):
    """The paper counts 0.2 to 0.6 million more, those of its classifier."""
    with torch.device('meta'):
        model = PyramidVisionTransformerV2(arch)
    count = sum(param.numel() for param in model.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.1)


def test_initialisation_of_pvt():
    torch.manual_seed(0)
    model = PyramidVisionTransformerV2('b0')
    model.init_weights()
    block = model.stages[0][0]
    for layer, std in ((block.attn.q, 0.02), (block.ffn.dwconv, (2 / 9)**0.5)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
    assert block.ffn.dwconv.bias.eq(0).all()
    model = PyramidVisionTransformerV2(
        'b0', init_cfg=dict(type='Constant', layer='Linear', val=3.))
    model.init_weights()
    assert model.stages[0][0].attn.q.weight.eq(3).all()


def test_checkpoints_of_twins_fit_the_parent():
    model = GreenMIMSVT(SVT_ARCH, patch_norm_cfg=dict(type='LN', eps=1e-6))
    parent = SVT(SVT_ARCH)
    parent.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(parent.state_dict(), strict=True)
