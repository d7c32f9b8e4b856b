# Copyright (c) greenmim authors. All rights reserved.
"""Imported backbones compute what they did where they come from."""
import argparse
import hashlib
import json

import pytest
import torch
from mmpretrain.models import SwinTransformer
from safetensors.torch import save_file
from torch import nn

from greenmim.models import LinearNeck
from greenmim.ops import patchify, units_of_map
from greenmim.registry import MODELS
from greenmim.weights.swin import Swin
from tests.conftest import CHECKOUT
from tests.fastmim_fixture import PATH as FASTMIM_PATH
from tests.fastmim_fixture import build_model as build_fastmim
from tests.fastmim_fixture import official_weights as fastmim_weights
from tests.micro_checkpoint import make_swin
from tests.official_fixture import (PATH, build_model, convert_official,
                                    official_weights)

TOOL = CHECKOUT / 'tools' / 'model_converters' / 'import_checkpoint.py'
# 8 blocks of 14 tensors, 3 mergings of 3, the patch embedding's 4, a norm.
BACKBONE = 8 * 14 + 3 * 3 + 4 + 2
# A block of 12 tensors, 3 layers with weight and bias, the mask token.
NECK = 12 + 3 * 2 + 1


@pytest.fixture
def convert(run_tool, tmp_path):
    """Import a file or tensors; the path and the content of the result."""

    def run(src, source='greenmim', *options):
        if isinstance(src, dict):
            src = save_as_authors(tmp_path / 'theirs.pth', src)
        out = tmp_path / 'deeper' / 'imported.pth'
        out.unlink(missing_ok=True)
        try:
            run_tool(TOOL, src, '--from', source, '--out', out, *options)
        except SystemExit:
            assert not out.exists()
            raise
        return out, torch.load(out, weights_only=True)

    return run


def save_as_authors(path, weights):
    """A training checkpoint as MAE's descendants write it, options and all."""
    options = argparse.Namespace(model='green_mim', batch_size=256, blr=1.5e-4)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))])
    torch.save(
        dict(
            model=weights,
            optimizer=optimizer.state_dict(),
            epoch=799,
            scaler={'scale': 65536.},
            args=options), path)
    return path


def theirs_of(swin, layout, prefix=''):
    """The tensors of a Swin in the names and order of others."""
    tensors, _ = Swin().to_layout(swin.state_dict(), layout)
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_prefix(state_dict, prefix='backbone.'):
    return {
        name[len(prefix):]: tensor
        for name, tensor in state_dict.items() if name.startswith(prefix)
    }


@pytest.mark.parametrize('source, order', [('greenmim', 'microsoft'),
                                           ('greenmim-2022', 'greenmim-2022')])
def test_greenmim(convert, tmp_path, capsys, source, order):
    path, checkpoint = convert(official_weights(), source, '--img-size', '224')
    out = capsys.readouterr().out
    assert f'backbone: {BACKBONE} of {BACKBONE} tensors matched' in out
    assert f'neck: {NECK} of {NECK} tensors matched' in out
    assert 'depths=[2, 2, 2, 2], embed_dims=8' in out
    assert "norm_cfg=dict(eps=1e-06, type='LN')" in out

    metadata = checkpoint['meta']['greenmim']
    theirs = tmp_path / 'theirs.pth'
    digest = hashlib.sha256(theirs.read_bytes()).hexdigest()
    assert metadata['source'] == dict(
        file='theirs.pth', sha256=digest, layout=source)
    assert metadata['img_size'] == 224
    assert metadata['window_size'] == [7, 7, 7, 7]
    report = json.loads(path.with_name('imported.pth.json').read_text())
    assert report['coverage']['neck'] == dict(
        total=NECK, matched=NECK, unmatched=[])

    expected = convert_official(official_weights(), order)
    assert checkpoint['state_dict'].keys() == expected.keys()
    for name, tensor in checkpoint['state_dict'].items():
        assert torch.equal(tensor, expected[name]), name
    build_model().load_state_dict(checkpoint['state_dict'], strict=True)


def test_fastmim(convert, capsys):
    """All tensors; what the model computes is compared elsewhere."""
    _, checkpoint = convert(FASTMIM_PATH, 'fastmim')
    metadata = checkpoint['meta']['greenmim']
    assert metadata['window_size'] == [4, 4, 4, 4]
    assert metadata['norm_eps'] == 1e-5
    out = capsys.readouterr().out
    total = NECK + 12 - 1  # another block, no mask token
    assert f'neck: {total} of {total} tensors matched' in out
    assert 'algorithm: 1 of 1 tensors matched' in out
    build_fastmim().load_state_dict(checkpoint['state_dict'], strict=True)


@torch.no_grad()
def test_simmim(convert, capsys):
    """A model of MMPretrain, in the authors' names."""
    swin = make_swin(window_size=4, img_size=128)
    decoder = nn.Conv2d(64, 32 * 32 * 3, 1)
    token = torch.randn(1, 1, 8)
    weights = theirs_of(swin, 'simmim', 'encoder.')
    weights['encoder.mask_token'] = token
    weights.update(decoder.state_dict(prefix='decoder.0.'))
    _, checkpoint = convert(weights, 'simmim')
    out = capsys.readouterr().out
    assert 'neck: 2 of 2' in out and 'algorithm: 1 of 1' in out
    assert 'left out' not in out
    neck = LinearNeck(64)
    neck.load_state_dict(without_prefix(checkpoint['state_dict'], 'neck.'))
    x = torch.randn(2, 64, 2, 3)
    images = nn.functional.pixel_shuffle(decoder(x), 32)
    pred = neck(
        units_of_map(x, (2, 3)).flatten(1, 2),
        torch.zeros(1, 2, 3, dtype=torch.bool))
    torch.testing.assert_close(pred, patchify(images, 32))
    assert torch.equal(checkpoint['state_dict']['mask_token'], token)

    del weights['decoder.0.bias']
    with pytest.raises(SystemExit, match='neck.linear.bias: missing'):
        convert(weights, 'simmim')


@pytest.mark.parametrize('source', ['simmim', 'fastmim', 'swin'])
def test_fine_tuned(convert, capsys, source):
    """Backbone and classifier; an MMPretrain classifier loads them."""
    swin = make_swin()
    theirs = theirs_of(swin, source)
    assert 'layers.0.downsample.reduction.weight' in theirs
    head = {'weight': torch.randn(5, 64), 'bias': torch.randn(5)}
    theirs.update({f'head.{name}': tensor for name, tensor in head.items()})
    theirs['layers.0.blocks.1.attn_mask'] = torch.zeros(1)
    _, content = convert(theirs, source)
    out = capsys.readouterr().out
    assert 'left out, not part of the backbone: layers.0' in out
    assert 'head: 2 of 2 tensors matched' in out
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmpretrain.SwinTransformer',
                **content['meta']['greenmim']['backbone']),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead', num_classes=5,
                in_channels=64)))
    model.load_state_dict(content['state_dict'], strict=True)
    for name, tensor in swin.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], tensor), name
    assert torch.equal(model.head.fc.weight, head['weight'])

    del theirs['head.bias']
    with pytest.raises(SystemExit, match='head.fc.bias: missing'):
        convert(theirs, source)


@pytest.mark.parametrize('changes, windows', [
    (dict(arch='tiny', window_size=7), [7] * 4),
    (dict(
        arch=dict(embed_dims=16, depths=[1, 2, 4, 3], num_heads=[1, 4, 2, 8]),
        in_channels=5,
        window_size=(14, 14, 14, 7)), [14, 14, 14, 7]),
    (dict(use_abs_pos_embed=True), [7] * 4),
    # A window larger than its map leaves a smaller table.
    (dict(window_size=(7, 7, 7, 4)), [7, 7, 7, 4]),
], ids=['tiny-w7', 'w14-5-channels', 'absolute', 'shrunk'])  # yapf: disable
def test_other_architectures(convert, changes, windows):
    _, content = convert(theirs_of(make_swin(**changes), 'swin'), 'swin')
    metadata = content['meta']['greenmim']
    assert metadata['window_size'] == windows
    SwinTransformer(**metadata['backbone']).load_state_dict(
        without_prefix(content['state_dict']), strict=True)


ZEROS = torch.zeros(3)


# New values of the authors' tensors, or None; the last line of the message.
@pytest.mark.parametrize('source, name, value, fault', [
    ('greenmim', 'encoder.layers.2.blocks.1.attn.qkv.bias', None,
     'backbone.stages.2.blocks.1.attn.w_msa.qkv.bias: missing'),
    ('greenmim', 'decoder_blocks.0.norm2.weight', None,
     'neck.decoder_blocks.0.ln2.weight: missing'),
    ('greenmim', 'mask_token', None, 'neck.mask_token: missing'),
    ('greenmim', 'head.weight', ZEROS, 'head.weight: unexpected'),
    ('greenmim', 'encoder.layers.0.blocks.0.extra.weight', ZEROS,
     'layers.0.blocks.0.extra.weight: unexpected'),
    ('greenmim', 'decoder_pos_embed', lambda positions: positions.flip(2),
     'decoder_pos_embed: unexpected'),
    ('fastmim', 'mask_token', None, 'algorithm.mask_token: missing'),
    ('fastmim', 'decoder_norm.bias', None, 'neck.decoder_norm.bias: missing'),
    ('fastmim', 'decoder_pos_embed', ZEROS, 'decoder_pos_embed: unexpected'),
])  # yapf: disable
def test_damage_is_named(convert, source, name, value, fault):
    official = dict(greenmim=official_weights, fastmim=fastmim_weights)
    weights = official[source]()
    weights[name] = value(weights[name]) if callable(value) else value
    weights = {k: v for k, v in weights.items() if v is not None}
    with pytest.raises(SystemExit) as error:
        convert(weights, source)
    assert error.value.code.endswith(f'\n  {fault} (--debug shows where)')


@pytest.mark.parametrize('source', ['timm', 'mmpretrain'])
def test_another_layout_is_refused(convert, source):
    with pytest.raises(
            SystemExit, match=r'import_checkpoint\.py: (.*: )?expected'):
        convert(PATH, source)


def test_foreign_models(convert):
    with pytest.raises(
            SystemExit,
            match=r"a backbone of \['swin', 'swin_v2', 'pvt_v2', 'cmt', .*"
            r"'vit', 'beit'\] in the names of 'swin', got names such as "
            r"\['blocks.0.weight'\]; see who wrote the file \(--debug"):
        convert({'blocks.0.weight': torch.ones(1)}, 'swin')


def test_what_tensors_do_not_determine(convert, tmp_path):
    """Heads of a ViT and windows of a Swin V2 are options."""
    timm = pytest.importorskip('timm')
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=32, embed_dim=24, depth=1, num_heads=2, num_classes=3)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    _, content = convert(tmp_path / 'vit.pth', 'timm', '--num-heads', '2')
    metadata = content['meta']['greenmim']
    assert metadata['family'] == 'vit'
    assert metadata['backbone']['arch']['num_heads'] == 2
    assert torch.equal(content['state_dict']['head.fc.weight'],
                       vit.head.weight)
    with pytest.raises(SystemExit, match=r"\['window_size'\] of a vit"):
        convert(tmp_path / 'vit.pth', 'timm', '--window-size', '7')

    swin = timm.models.swin_transformer_v2.SwinTransformerV2(
        img_size=64,
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        window_size=(4, 4, 4, 2),
        num_classes=0)
    save_file(swin.state_dict(), tmp_path / 'swin.safetensors')
    _, content = convert(tmp_path / 'swin.safetensors', 'timm',
                         '--window-size', '4', '4', '4', '2',
                         '--pretrained-window-size', '3')
    metadata = content['meta']['greenmim']
    assert metadata['window_size'] == [4, 4, 4, 2]
    assert metadata['backbone']['pretrained_window_sizes'] == [3, 3, 3, 3]
    with pytest.raises(SystemExit, match='pass the windows by --window-size'):
        convert(tmp_path / 'swin.safetensors', 'timm')


def test_bad_arguments(run_tool, capsys):
    with pytest.raises(SystemExit, match='suffix .pth, which MMEngine'):
        run_tool(TOOL, PATH, '--from', 'greenmim', '--out', 'a.safetensors')
    with pytest.raises(SystemExit, match='2'):
        run_tool(TOOL, PATH)
    assert '--from' in capsys.readouterr().err
