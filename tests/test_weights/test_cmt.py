# Copyright (c) greenmim authors. All rights reserved.
"""CMT and PVT v2 of FastMIM's checkpoints, decoder and token with them."""
import pytest
import torch

from greenmim.models import MaskTokenMIM
from greenmim.weights import (TARGETS, convert_rest, read_backbone,
                              read_source, tensors_for)
from greenmim.weights.cmt import CMT
from greenmim.weights.pvt_v2 import PVT_V2
from tests.backbones.checks import randomise
from tests.backbones.cmt import arch as cmt_arch
from tests.backbones.pvt_v2 import arch as pvt_arch

BACKBONES = {
    'cmt': (CMT, dict(
        type='greenmim.GreenMIMCMT', arch=cmt_arch(), img_size=64)),
    'pvt_v2': (PVT_V2, dict(
        type='greenmim.GreenMIMPVTv2', arch=pvt_arch(num_heads=[1, 1, 2, 2]))),
}  # yapf: disable


@pytest.mark.parametrize('name', BACKBONES)
def test_a_whole_fastmim(tmp_path, name):
    """There and back: every tensor is where it was."""
    family, backbone = BACKBONES[name]
    model = randomise(
        MaskTokenMIM(
            backbone,
            dict(
                type='greenmim.GreenMIMNeck',
                in_channels=16,
                embed_dims=32,
                num_heads=1,
                out_channels=432,
                pos_embed=False,
                mask_token=False),
            dict(
                type='greenmim.GreenMIMHead',
                target=dict(type='greenmim.HOGTarget')),
            mask_token='pixel'))
    ours = model.state_dict()
    encoder = {
        key[len('backbone.'):]: tensor
        for key, tensor in ours.items() if key.startswith('backbone.')
    }
    theirs, homeless = family.to_layout(encoder, family.layouts['fastmim'])
    assert not homeless
    theirs = {f'encoder.{key}': tensor for key, tensor in theirs.items()}
    words = (('neck.', ''), ('.ffn.layers.0.0.', '.mlp.fc1.'),
             ('.ffn.layers.1.', '.mlp.fc2.'), ('.ln', '.norm'))
    for key, tensor in ours.items():
        if not key.startswith('backbone.'):
            for word, other in words:
                key = key.replace(word, other)
            theirs[key] = tensor
    if name == 'cmt':
        assert {
            'encoder.stem_conv3.weight', 'encoder.stem_norm1.running_mean',
            'encoder.patch_embed_b.proj.weight', 'encoder.relative_pos_c',
            'encoder.blocks_a.1.mlp.proj_bn.bias',
            'encoder.blocks_d.0.attn.k.weight', 'encoder.norm.bias'
        } <= theirs.keys()
    torch.save(dict(model=theirs), tmp_path / 'theirs.pth')

    source = read_source(tmp_path / 'theirs.pth')
    found = read_backbone(source, 'fastmim')
    assert found.family is family
    rest, coverages = convert_rest('fastmim', source, found)
    for coverage in (found.coverage, *coverages):
        assert not coverage.faults
    converted = {f'backbone.{k}': v for k, v in found.tensors.items()}
    converted.update(rest)
    assert converted.keys() == ours.keys()
    assert all(torch.equal(converted[key], ours[key]) for key in ours)
    assert found.settings['arch'] == backbone['arch']
    assert found.settings.get('img_size', 64) == 64
    if name == 'cmt':
        with pytest.raises(ValueError, match='timm, which has none'):
            tensors_for(found, TARGETS['timm'])


def test_cmt_declared_settings():
    cfg = dict(arch='small', img_size=128, norm_cfg=dict(type='LN', eps=1e-5))
    settings = CMT.declared_settings(cfg)
    with torch.device('meta'):
        built = CMT.build(settings)
    assert CMT.infer_settings(built.state_dict(), None)['arch'] == (
        settings['arch'])
    assert settings['norm_cfg']['eps'] == 1e-5
    with pytest.raises(ValueError, match='an arch of CMT'):
        CMT.declared_settings(dict(arch='huge'))


def test_parts_of_a_cmt_are_refused():
    with pytest.raises(ValueError, match='a whole CMT'):
        CMT.infer_settings({'position_biases.0.bias': torch.zeros(1, 4, 4)})
