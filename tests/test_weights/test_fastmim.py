# Copyright (c) greenmim authors. All rights reserved.
"""CMT and PVT v2 of FastMIM's checkpoints, decoder and token with them."""
import pytest
import torch

from greenmim.models import MaskTokenMIM
from greenmim.weights import (TARGETS, convert_decoder_or_head, read_backbone,
                              tensors_for)
from greenmim.weights.convert import FAMILIES
from tests.backbones.checks import randomise
from tests.micro_checkpoint import BACKBONES, save_model


@pytest.mark.parametrize('name', ['cmt', 'pvt_v2'])
def test_a_whole_fastmim(tmp_path, name):
    """There and back: every tensor is where it was."""
    family = next(family for family in FAMILIES if family.name == name)
    config = BACKBONES[name]
    ours = randomise(
        MaskTokenMIM(
            config,
            dict(
                type='greenmim.GreenMIMNeck',
                in_channels=config['arch']['embed_dims'][-1],
                embed_dims=32,
                num_heads=1,
                out_channels=432,
                pos_embed=False,
                mask_token=False),
            dict(
                type='greenmim.GreenMIMHead',
                target=dict(type='greenmim.HOGTarget')),
            mask_token='pixel')).state_dict()
    encoder = {
        key[len('backbone.'):]: tensor
        for key, tensor in ours.items() if key.startswith('backbone.')
    }
    theirs, unexpected = family.to_layout(encoder, 'fastmim')
    assert not unexpected
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

    source = save_model(tmp_path / 'theirs.pth', theirs)
    found = read_backbone(source, 'fastmim')
    assert found.family is family
    others, coverages = convert_decoder_or_head('fastmim', source, found)
    for coverage in (found.coverage, *coverages):
        assert not coverage.faults
    converted = {**tensors_for(found, TARGETS['mmpretrain']), **others}
    assert converted.keys() == ours.keys()
    assert all(torch.equal(converted[key], ours[key]) for key in ours)
    assert found.settings['arch'] == config['arch']
    assert found.settings.get('img_size', 64) == 64
    if name == 'cmt':
        with pytest.raises(ValueError, match='timm, which has none'):
            tensors_for(found, TARGETS['timm'])
