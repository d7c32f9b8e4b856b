# Copyright (c) greenmim authors. All rights reserved.
"""PVT v2 in the names of other libraries: the same features there."""
import pytest
import torch
from torch import nn

from greenmim.models import GreenMIMPVTv2
from greenmim.weights import (TARGETS, fit_to, passport_of, read_backbone,
                              read_source, tensors_for, write_weights)
from greenmim.weights.pvt_v2 import PVT_V2
from tests.micro_checkpoint import randomise

ARCH = dict(
    embed_dims=[8, 16, 40, 64],
    depths=[1, 2, 1, 1],
    num_heads=[1, 2, 5, 8],
    mlp_ratios=[8, 8, 4, 4],
    sr_ratios=[8, 4, 2, 1])
AUTHORS_EPS = dict(conv_norm_cfg=dict(type='LN', eps=1e-5))


def make_pvt(**changes) -> GreenMIMPVTv2:
    torch.manual_seed(0)
    model = GreenMIMPVTv2(arch=ARCH, out_indices=(0, 1, 2, 3), **changes)
    return randomise(model)


def load(tensors, model: nn.Module) -> nn.Module:
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def assert_same_features(model, other):
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        outs, expected = model(x), other(x)
    assert len(outs) == len(expected) == 4
    for out, target in zip(outs, expected):
        assert out.shape == target.shape
        assert (out - target).abs().max() <= 1e-5 * target.abs().max()


@pytest.mark.parametrize('name', PVT_V2.layouts)
def test_there_and_back(name):
    tensors = make_pvt().state_dict()
    theirs, homeless = PVT_V2.to_layout(tensors, PVT_V2.layouts[name])
    assert not homeless
    ours, homeless = PVT_V2.from_layout(theirs, PVT_V2.layouts[name])
    assert not homeless and ours.keys() == tensors.keys()
    assert all(torch.equal(ours[key], tensors[key]) for key in tensors)


def test_features_equal_those_of_timm():
    timm = pytest.importorskip('timm')
    other = timm.models.pvt_v2.PyramidVisionTransformerV2(
        embed_dims=ARCH['embed_dims'],
        depths=ARCH['depths'],
        num_heads=ARCH['num_heads'],
        mlp_ratios=ARCH['mlp_ratios'],
        sr_ratios=ARCH['sr_ratios'],
        num_classes=0)
    model = make_pvt(**AUTHORS_EPS)
    theirs, _ = PVT_V2.to_layout(model.state_dict(), PVT_V2.layouts['timm'])
    load(theirs, other)

    def features(x):
        return other.forward_intermediates(x, intermediates_only=True)

    assert_same_features(model, features)
    ours, _ = PVT_V2.from_layout(
        randomise(other).state_dict(), PVT_V2.layouts['timm'])
    assert_same_features(load(ours, model), features)


@pytest.mark.downstream
def test_features_equal_those_of_mmdetection():
    from mmdet.models import PyramidVisionTransformerV2
    other = PyramidVisionTransformerV2(
        embed_dims=8,
        num_layers=ARCH['depths'],
        num_heads=ARCH['num_heads'],
        mlp_ratios=ARCH['mlp_ratios'],
        sr_ratios=ARCH['sr_ratios'])
    model = make_pvt()
    theirs, _ = PVT_V2.to_layout(model.state_dict(), PVT_V2.layouts['mmdet'])
    assert_same_features(model, load(theirs, other))

    ours, _ = PVT_V2.from_layout(
        randomise(other).state_dict(), PVT_V2.layouts['mmdet'])
    assert_same_features(load(ours, model), other)


@pytest.mark.parametrize('arch', ['b0', 'b2', 'b5'])
def test_settings_are_read_off_the_tensors(arch):
    with torch.device('meta'):
        model = GreenMIMPVTv2(arch=arch, in_channels=4)
    settings = PVT_V2.infer_settings(model.state_dict(), 1e-6)
    assert settings['arch'] == GreenMIMPVTv2.arch_zoo[arch]
    assert settings['in_channels'] == 4 and settings['qkv_bias']
    with torch.device('meta'):
        built = PVT_V2.build(settings)
    assert {
        k: v.shape
        for k, v in built.state_dict().items()
    } == {
        k: v.shape
        for k, v in model.state_dict().items()
    }


def test_settings_of_half_a_model_are_refused():
    tensors = make_pvt().state_dict()
    del tensors['stages.2.0.ffn.fc1.weight']
    with pytest.raises(ValueError, match='whole PVT v2'):
        PVT_V2.infer_settings(tensors)


def test_declared_settings():
    cfg = dict(
        type='greenmim.GreenMIMPVTv2',
        arch='b1',
        conv_norm_cfg=dict(type='LN', eps=1e-5))
    settings = PVT_V2.declared_settings(cfg)
    assert settings['arch'] == GreenMIMPVTv2.arch_zoo['b1']
    assert settings['norm_cfg']['eps'] == 1e-6
    assert settings['conv_norm_cfg']['eps'] == 1e-5
    with pytest.raises(ValueError, match='an arch of PVT v2'):
        PVT_V2.declared_settings(dict(arch='tiny'))


def test_from_one_library_to_another(tmp_path):
    """A file of timm, with a head, becomes one for MMDetection."""
    model = make_pvt(**AUTHORS_EPS)
    theirs, _ = PVT_V2.to_layout(model.state_dict(), PVT_V2.layouts['timm'])
    path = tmp_path / 'timm.pth'
    torch.save({**theirs, 'head.weight': torch.zeros(3, 64)}, path)
    backbone = read_backbone(read_source(path), 'timm')
    assert backbone.family is PVT_V2
    assert backbone.left_out == ('head.weight', )
    assert backbone.settings['conv_norm_cfg']['eps'] == 1e-5
    target = TARGETS['mmdet']
    fitted = fit_to(backbone, target)
    expected, _ = PVT_V2.to_layout(model.state_dict(), PVT_V2.layouts['mmdet'])
    tensors = tensors_for(fitted, target)
    # Its class there loads the file without MMEngine and knows no prefix.
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name
    with pytest.raises(ValueError, match='no window'):
        fit_to(backbone, target, [7])

    path = tmp_path / 'ours.pth'
    write_weights(
        path, backbone, TARGETS['mmpretrain'],
        passport_of(backbone, read_source(path.with_name('timm.pth')),
                    'timm.pth', 'timm', 'mmpretrain'))
    again = read_backbone(read_source(path))
    assert again.settings == backbone.settings
