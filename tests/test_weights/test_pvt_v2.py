# Copyright (c) greenmim authors. All rights reserved.
"""PVT v2 in the names of other libraries: the same features there."""
import pytest
import torch

from greenmim.weights import (TARGETS, fit_to, read_backbone, read_source,
                              tensors_for, write_weights)
from greenmim.weights.pvt_v2 import PVTv2
from tests.micro_checkpoint import (BACKBONES, make_backbone, randomise,
                                    save_model)

ARCH = BACKBONES['pvt_v2']['arch']
AUTHORS_EPS = dict(conv_norm_cfg=dict(type='LN', eps=1e-5))


@torch.no_grad()
def assert_same_features(other, layout, features, **settings):
    """Our weights in the other model, and its own in ours."""
    model = make_backbone('pvt_v2', out_indices=(0, 1, 2, 3), **settings)
    theirs, _ = PVTv2().to_layout(model.state_dict(), layout)
    for own in False, True:
        if own:
            theirs = randomise(other).state_dict()
            ours, _ = PVTv2().from_layout(theirs, layout)
            model.load_state_dict(ours, strict=True)
        else:
            other.load_state_dict(theirs, strict=True)
        other.eval()
        x = torch.randn(2, 3, 64, 96)
        outs, expected = model(x), features(x)
        assert len(outs) == len(expected) == 4
        for out, target in zip(outs, expected):
            assert out.shape == target.shape
            assert (out - target).abs().max() <= 1e-5 * target.abs().max()


def test_features_equal_those_of_timm():
    timm = pytest.importorskip('timm')
    other = timm.models.pvt_v2.PyramidVisionTransformerV2(
        num_classes=0, **ARCH)
    assert_same_features(
        other, 'timm',
        lambda x: other.forward_intermediates(x, intermediates_only=True),
        **AUTHORS_EPS)


@pytest.mark.downstream
def test_features_equal_those_of_mmdetection():
    from mmdet.models import PyramidVisionTransformerV2
    arch = dict(ARCH, embed_dims=8, num_layers=ARCH['depths'])
    del arch['depths']
    other = PyramidVisionTransformerV2(**arch)
    assert_same_features(other, 'mmdet', other)


def test_from_one_library_to_another(tmp_path):
    """A file of timm, with a head, becomes one for MMDetection."""
    ours = make_backbone('pvt_v2', **AUTHORS_EPS).state_dict()
    theirs, _ = PVTv2().to_layout(ours, 'timm')
    theirs['head.weight'] = torch.zeros(3, 64)
    source = save_model(tmp_path / 'timm.pth', theirs)
    backbone = read_backbone(source, 'timm')
    assert isinstance(backbone.family, PVTv2)
    assert backbone.left_out == ('head.weight', )
    assert backbone.settings['conv_norm_cfg']['eps'] == 1e-5
    target = TARGETS['mmdet']
    expected, _ = PVTv2().to_layout(ours, 'mmdet')
    tensors = tensors_for(fit_to(backbone, target), target)
    # Its class there loads the file without MMEngine and knows no prefix.
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name
    write_weights(tmp_path / 'a.pth', backbone, 'mmpretrain', source, 'timm')
    again = read_backbone(read_source(tmp_path / 'a.pth'))
    assert again.settings == backbone.settings
