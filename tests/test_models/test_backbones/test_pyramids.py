# Copyright (c) greenmim authors. All rights reserved.
"""What Twins and PVT v2 have beside the common tests."""
import pytest
import torch
from mmpretrain.models import SVT
from torch import nn

from greenmim.models import (GreenMIMPCPVT, GreenMIMPVTv2, GreenMIMSVT,
                             PyramidVisionTransformerV2)
from greenmim.ops import VisibleLayout
from tests.backbones.pvt_v2 import arch as pvt_arch
from tests.backbones.twins import arch as pcpvt_arch
from tests.backbones.twins import svt_arch

MASK = torch.tensor([[[1, 0], [0, 1]]]).bool()
SVT_ARCH = svt_arch([7, 7, 7, 7])


@pytest.mark.parametrize('name, depth', [
    ('patch_embeds.0.projection.weight', 0),
    ('stages.0.0.norm1.weight', 1),
    ('position_encodings.0.proj.weight', 1),
    ('stages.0.1.norm1.weight', 2),
    ('patch_embeds.1.norm.weight', 2),
    ('norm_after_stage1.weight', 4),
    ('stages.2.0.attn.qkv.weight', 5),
    ('stages.3.1.ffn.layers.1.bias', 8),
    ('norm_after_stage3.weight', 9),
])
def test_layer_depths_of_twins(name, depth):
    model = GreenMIMSVT(SVT_ARCH, norm_after_stage=True)
    assert name in dict(model.named_parameters())
    assert model.get_layer_depth(name) == (depth, 10)
    assert model.get_layer_depth(f'backbone.{name}',
                                 'backbone.') == (depth, 10)
    assert model.get_layer_depth('head.fc.bias', 'backbone.') == (9, 10)


def test_layer_depths_of_pvt_grow_with_the_names():
    model = GreenMIMPVTv2(pvt_arch())
    depths = {}
    for name, _ in model.named_parameters():
        depth, num_layers = model.get_layer_depth(name)
        assert num_layers == 7
        depths[name] = depth
    assert depths['patch_embeds.0.norm.bias'] == 0
    assert depths['stages.0.1.ffn.dwconv.bias'] == 2
    assert depths['norm0.weight'] == 2
    assert depths['patch_embeds.1.projection.weight'] == 2
    assert depths['stages.1.0.attn.sr.weight'] == 3
    assert depths['norm3.bias'] == 6
    assert set(depths.values()) == set(range(7))


@pytest.mark.parametrize('model', [
    lambda: GreenMIMPCPVT(pcpvt_arch(), frozen_stages=1),
    lambda: GreenMIMPVTv2(pvt_arch(), frozen_stages=1),
])
def test_frozen_stages_stay_in_evaluation_mode(model):
    model = model()
    assert model.train() is model and model.training
    for i in range(4):
        for modules in (model.patch_embeds, model.stages):
            assert modules[i].training is (i > 1)
            assert all(param.requires_grad is (i > 1)
                       for param in modules[i].parameters())  # yapf: disable


def test_every_layer_norm_of_twins_gets_its_eps():
    norm = dict(type='LN', eps=1e-6)
    model = GreenMIMSVT(SVT_ARCH, norm_cfg=norm, patch_norm_cfg=norm)
    assert {m.eps
            for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    model = GreenMIMSVT(SVT_ARCH, norm_cfg=norm)
    assert {embed.norm.eps for embed in model.patch_embeds} == {1e-5}


def test_layers_that_reach_beyond_a_unit_are_refused():
    x = torch.rand(1, 3, 64, 64)
    model = GreenMIMPCPVT(pcpvt_arch(sr_ratios=[8, 4, 2, 2]))
    assert model(x)[0].shape == (1, 16, 2, 2)
    with pytest.raises(ValueError, match='divides the 1 tokens'):
        model(x, MASK)
    model = GreenMIMPVTv2(pvt_arch(sr_ratios=[8, 8, 1, 1]))
    with pytest.raises(ValueError, match='divides the 4 tokens'):
        model(x, MASK)
    model = GreenMIMSVT(svt_arch([7, 7, 7, 7], patch_sizes=[4, 3, 2, 2]))
    with pytest.raises(ValueError, match='kernel equals its stride'):
        model(x, MASK)


def test_a_plan_of_another_backbone_is_refused():
    x = torch.rand(1, 3, 64, 64)
    plan = GreenMIMSVT(SVT_ARCH).make_planner()(VisibleLayout.from_mask(MASK))
    with pytest.raises(ValueError, match='make_planner'):
        GreenMIMSVT(svt_arch([2, 2, 2, 2]))(x, plan)
    with pytest.raises(ValueError, match='make_planner'):
        GreenMIMPCPVT(pcpvt_arch())(x, plan)


def test_bad_arguments():
    with pytest.raises(ValueError, match='attn_backend'):
        GreenMIMSVT(SVT_ARCH, attn_backend='none')
    with pytest.raises(ValueError, match='arch'):
        GreenMIMPVTv2('b9')
    with pytest.raises(ValueError, match='keys'):
        GreenMIMPVTv2(dict(depths=[1]))
    with pytest.raises(ValueError, match='out_indices'):
        GreenMIMPVTv2(pvt_arch(), out_indices=(4, ))


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
