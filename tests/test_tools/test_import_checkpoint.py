# Copyright (c) greenmim authors. All rights reserved.
"""Imported backbones compute what they did where they come from."""
import argparse
import hashlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from mmpretrain.models import SwinTransformer
from safetensors.torch import save_file
from torch import nn

from greenmim.models import LinearNeck
from greenmim.ops import patchify, units_of_map
from greenmim.registry import MODELS
from greenmim.weights import SOURCES, TARGETS
from greenmim.weights.swin import SWIN
from tests.fastmim_fixture import PATH as FASTMIM_PATH
from tests.fastmim_fixture import build_model as build_fastmim
from tests.fastmim_fixture import official_weights as fastmim_weights
from tests.micro_checkpoint import (config_text, make_swin, randomise,
                                    save_training)
from tests.official_fixture import (PATH, build_model, convert_official,
                                    official_weights)

TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'
# 8 blocks of 14 tensors, 3 mergings of 3, the patch embedding's 4, a norm.
BACKBONE = 8 * 14 + 3 * 3 + 4 + 2
# A block of 12 tensors, 3 layers with weight and bias, the mask token.
NECK = 12 + 3 * 2 + 1


@pytest.fixture
def convert(run_tool, tmp_path):
    """Import a file; the checkpoint that is written."""

    def run(src, source='greenmim', *options):
        out = tmp_path / 'deeper' / 'imported.pth'
        try:
            run_tool(TOOLS / 'import_checkpoint.py', src, '--from', source,
                     '--out', out, *options)
        except SystemExit:
            assert not out.exists()
            raise
        return out

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


@pytest.mark.parametrize('source, order', [('greenmim', 'microsoft'),
                                           ('greenmim-2022', 'greenmim-2022')])
def test_greenmim(convert, tmp_path, capsys, source, order):
    src = save_as_authors(tmp_path / 'theirs.pth', official_weights())
    path = convert(src, source, '--img-size', '224')
    checkpoint = torch.load(path, weights_only=True)
    out = capsys.readouterr().out
    assert f'backbone: {BACKBONE} of {BACKBONE} tensors matched' in out
    assert f'neck: {NECK} of {NECK} tensors matched' in out
    assert 'arch=dict(embed_dims=8, depths=[2, 2, 2, 2]' in out
    assert "norm_cfg=dict(type='LN', eps=1e-06)" in out

    passport = checkpoint['meta']['greenmim']
    digest = hashlib.sha256(src.read_bytes()).hexdigest()
    assert passport['source'] == dict(
        file='theirs.pth', sha256=digest, layout=source)
    assert passport['img_size'] == 224
    assert passport['window_size'] == [7, 7, 7, 7]
    report = json.loads(path.with_name('imported.pth.json').read_text())
    assert report['coverage']['neck'] == dict(
        total=NECK, matched=NECK, unmatched=[])

    expected = convert_official(official_weights(), order)
    assert checkpoint['state_dict'].keys() == expected.keys()
    for name, tensor in checkpoint['state_dict'].items():
        assert torch.equal(tensor, expected[name]), name
    build_model().load_state_dict(checkpoint['state_dict'], strict=True)


def test_greenmim_in_safetensors(convert, capsys):
    """The fixture itself: its inputs and outputs are no part of a model."""
    checkpoint = torch.load(convert(PATH), weights_only=True)
    assert f'neck: {NECK} of {NECK}' in capsys.readouterr().out
    build_model().load_state_dict(checkpoint['state_dict'], strict=True)


def test_plain_swin_loads_it(convert):
    """As in a fine-tuning config, with no missing key."""
    path = convert(PATH)
    passport = torch.load(path, weights_only=True)['meta']['greenmim']
    swin = SwinTransformer(
        **passport['backbone'],
        init_cfg=dict(
            type='Pretrained', checkpoint=str(path), prefix='backbone.'))
    swin.init_weights()
    expected = convert_official(official_weights(), 'microsoft')
    assert len(swin.state_dict()) == BACKBONE
    for name, tensor in swin.state_dict().items():
        assert torch.equal(tensor, expected[f'backbone.{name}']), name


def test_fastmim(convert, capsys):
    """The whole of it; what it computes is compared elsewhere."""
    checkpoint = torch.load(
        convert(FASTMIM_PATH, 'fastmim'), weights_only=True)
    passport = checkpoint['meta']['greenmim']
    assert passport['window_size'] == [4, 4, 4, 4]
    assert passport['norm_eps'] == 1e-5
    out = capsys.readouterr().out
    total = NECK + 12 - 1  # another block, no mask token
    assert f'neck: {total} of {total} tensors matched' in out
    assert 'algorithm: 1 of 1 tensors matched' in out
    build_fastmim().load_state_dict(checkpoint['state_dict'], strict=True)


@pytest.mark.parametrize('name, fault', [
    ('mask_token', 'algorithm.mask_token: missing'),
    ('decoder_norm.bias', 'neck.decoder_norm.bias: missing'),
    ('decoder_pos_embed', 'decoder_pos_embed: unknown'),
])
def test_fastmim_is_whole(convert, tmp_path, name, fault):
    weights = fastmim_weights()
    if name in weights:
        del weights[name]
    else:
        weights[name] = torch.zeros(1)
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit) as error:
        convert(src, 'fastmim')
    assert error.value.code.endswith(f'\n  {fault}')


@torch.no_grad()
def test_simmim(convert, tmp_path, capsys):
    """A model of MMPretrain, in the authors' names."""
    swin = make_swin(window_size=4, img_size=128)
    theirs, _ = SWIN.to_layout(swin.state_dict(), SWIN.layouts['simmim'])
    decoder = nn.Conv2d(64, 32 * 32 * 3, 1)
    token = torch.randn(1, 1, 8)
    weights = {f'encoder.{name}': t for name, t in theirs.items()}
    weights['encoder.mask_token'] = token
    weights.update({
        f'decoder.0.{k}': v
        for k, v in decoder.state_dict().items()
    })
    path = convert(save_as_authors(tmp_path / 'theirs.pth', weights), 'simmim')
    out = capsys.readouterr().out
    assert 'neck: 2 of 2' in out and 'algorithm: 1 of 1' in out
    assert 'left out' not in out
    checkpoint = torch.load(path, weights_only=True)
    neck = LinearNeck(64)
    neck.load_state_dict({
        name[len('neck.'):]: tensor
        for name, tensor in checkpoint['state_dict'].items()
        if name.startswith('neck.')
    })
    x = torch.randn(2, 64, 2, 3)
    images = nn.functional.pixel_shuffle(decoder(x), 32)
    pred = neck(
        units_of_map(x, (2, 3)).flatten(1, 2),
        torch.zeros(1, 2, 3, dtype=torch.bool))
    torch.testing.assert_close(pred, patchify(images, 32))
    assert torch.equal(checkpoint['state_dict']['mask_token'], token)

    path.unlink()
    del weights['decoder.0.bias']
    with pytest.raises(SystemExit, match='neck.linear.bias: missing'):
        convert(save_as_authors(tmp_path / 'theirs.pth', weights), 'simmim')


@torch.no_grad()
def test_timm(convert, tmp_path):
    """Weights that timm itself has made and saved."""
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=224,
        num_classes=3,
        embed_dim=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 4),
        window_size=7,
        norm_layer=partial(nn.LayerNorm, eps=1e-6))
    randomise(model)
    save_file(model.state_dict(), tmp_path / 'timm.safetensors')
    path = convert(tmp_path / 'timm.safetensors', 'timm')
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint['meta']['greenmim']['norm_eps'] is None
    swin = make_swin()
    swin.load_state_dict({
        name[len('backbone.'):]: tensor
        for name, tensor in checkpoint['state_dict'].items()
    })
    images = torch.randn(1, 3, 224, 224)
    expected = model.forward_features(images).permute(0, 3, 1, 2)
    assert expected.std() > 0.1
    assert (swin(images)[0] - expected).abs().max() < 1e-5


@pytest.mark.parametrize('source', ['simmim', 'fastmim', 'swin'])
def test_fine_tuned(convert, tmp_path, capsys, source):
    """Backbone and classifier; an MMPretrain classifier loads them."""
    swin = make_swin()
    theirs, _ = SWIN.to_layout(swin.state_dict(), SWIN.layouts[source])
    # What tells their names from ours, and their order.
    assert 'layers.0.downsample.reduction.weight' in theirs
    head = {'weight': torch.randn(5, 64), 'bias': torch.randn(5)}
    theirs.update({f'head.{name}': tensor for name, tensor in head.items()})
    theirs['layers.0.blocks.1.attn_mask'] = torch.zeros(1)
    src = save_as_authors(tmp_path / 'theirs.pth', theirs)
    path = convert(src, source)
    out = capsys.readouterr().out
    assert 'left out, no part of the backbone: layers.0' in out
    assert 'head: 2 of 2 tensors matched' in out
    content = torch.load(path, weights_only=True)
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

    path.unlink()
    del theirs['head.bias']
    with pytest.raises(SystemExit, match='head.fc.bias: missing'):
        convert(save_as_authors(src, theirs), source)


@pytest.mark.parametrize('to', TARGETS)
def test_round_trip(convert, run_tool, tmp_path, to):
    """Identical tensors, facts and names after export and import."""
    swin = make_swin()
    checkpoint = save_training(
        tmp_path / 'a.pth', swin, meta=dict(cfg=config_text()))
    out = tmp_path / f'exported{TARGETS[to].suffix}'
    run_tool(TOOLS / 'export_backbone.py', checkpoint, '--to', to, '--out',
             out)
    content = torch.load(convert(out, to), weights_only=True)
    assert content['state_dict'].keys() == {
        f'backbone.{name}'
        for name in swin.state_dict()
    }
    for name, tensor in swin.state_dict().items():
        assert torch.equal(content['state_dict'][f'backbone.{name}'],
                           tensor), name
    passport = content['meta']['greenmim']
    assert passport['img_size'] == 224 and passport['norm_eps'] == 1e-6
    assert not passport['added']


def test_every_layout_is_a_source():
    assert set(SOURCES) == {
        'mmpretrain', 'mmdet', 'mmseg', 'safetensors', 'timm', 'greenmim',
        'greenmim-2022', 'simmim', 'fastmim', 'swin', 'pvt-v2'
    }


def test_shrunk_windows_are_named_stage_by_stage(convert, tmp_path):
    """As a window that exceeds its map leaves it in the authors' files."""
    weights = official_weights()
    shrunk = make_swin(window_size=(7, 7, 7, 4))
    theirs, _ = SWIN.to_layout(shrunk.state_dict(), SWIN.layouts['greenmim'])
    weights.update({
        f'encoder.{name}': tensor
        for name, tensor in theirs.items()
    })
    path = convert(save_as_authors(tmp_path / 'theirs.pth', weights))
    passport = torch.load(path, weights_only=True)['meta']['greenmim']
    assert passport['window_size'] == [7, 7, 7, 4]


@pytest.mark.parametrize('architecture', [
    dict(arch='tiny', window_size=7),
    dict(
        arch=dict(embed_dims=16, depths=[1, 2, 4, 3], num_heads=[1, 4, 2, 8]),
        in_channels=5,
        window_size=(14, 14, 14, 7)),
    dict(use_abs_pos_embed=True),
], ids=['tiny-w7', 'w14-5-channels', 'absolute'])  # yapf: disable
def test_other_architectures(convert, tmp_path, architecture):
    swin = make_swin(**architecture)
    theirs, _ = SWIN.to_layout(swin.state_dict(), SWIN.layouts['swin'])
    path = convert(save_as_authors(tmp_path / 'theirs.pth', theirs), 'swin')
    content = torch.load(path, weights_only=True)
    SwinTransformer(**content['meta']['greenmim']['backbone']).load_state_dict(
        {
            name[len('backbone.'):]: tensor
            for name, tensor in content['state_dict'].items()
        },
        strict=True)


@pytest.mark.parametrize('name, ours', [
    ('encoder.layers.2.blocks.1.attn.qkv.bias',
     'backbone.stages.2.blocks.1.attn.w_msa.qkv.bias'),
    ('encoder.layers.1.downsample.norm.bias',
     'backbone.stages.1.downsample.norm.bias'),
    ('encoder.norm.weight', 'backbone.norm3.weight'),
    ('decoder_blocks.0.norm2.weight', 'neck.decoder_blocks.0.ln2.weight'),
    ('mask_token', 'neck.mask_token'),
])
def test_missing_tensors_are_named(convert, tmp_path, name, ours):
    weights = official_weights()
    del weights[name]
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit) as error:
        convert(src)
    assert error.value.code.endswith(f'\n  {ours}: missing')


@pytest.mark.parametrize('name, reported', [
    ('head.weight', 'head.weight'),
    ('encoder.layers.0.blocks.0.extra.weight',
     'layers.0.blocks.0.extra.weight'),
    ('encoder.layers.0.blocks.0.attn.extra',
     'backbone.stages.0.blocks.0.attn.w_msa.extra'),
])
def test_tensors_without_a_place_are_named(convert, tmp_path, name, reported):
    weights = dict(official_weights(), **{name: torch.zeros(3)})
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit) as error:
        convert(src)
    assert error.value.code.endswith(f'\n  {reported}: unknown')


def test_other_shapes_are_named(convert, tmp_path):
    weights = official_weights()
    weights['encoder.layers.0.blocks.1.mlp.fc1.bias'] = torch.zeros(31)
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(
            SystemExit,
            match=r'stages\.0\.blocks\.1\.ffn\.layers\.0\.0\.bias: expected '
            r'shape \(32,\), got \(31,\)'):
        convert(src)


def test_another_order_of_the_bias_table_is_refused(convert, tmp_path):
    weights = official_weights()
    name = 'encoder.layers.0.blocks.1.attn.relative_position_index'
    weights[name] = weights[name].T.contiguous()
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit, match='indexes the bias table in another'):
        convert(src)


def test_other_positions_are_refused(convert, tmp_path):
    weights = official_weights()
    weights['decoder_pos_embed'] = weights['decoder_pos_embed'].flip(2)
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit, match='decoder_pos_embed: unknown'):
        convert(src)


@pytest.mark.parametrize('source', ['timm', 'mmpretrain'])
def test_another_layout_is_refused(convert, source):
    with pytest.raises(SystemExit, match='import_checkpoint.py: expected'):
        convert(PATH, source)


def test_foreign_models(convert, tmp_path):
    torch.save(dict(model={'blocks.0.weight': torch.ones(1)}),
               tmp_path / 'vit.pth')  # yapf: disable
    with pytest.raises(
            SystemExit,
            match=r"a backbone of \['swin', 'swin_v2', 'pvt_v2', 'cmt', "
            r"'vit', 'beit'\] in the layout 'swin', got names such as "
            r"\['blocks.0.weight'\]$"):
        convert(tmp_path / 'vit.pth', 'swin')


def test_what_tensors_do_not_tell(convert, tmp_path):
    """Heads of a ViT and windows of a Swin V2 are options."""
    timm = pytest.importorskip('timm')
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=32, embed_dim=24, depth=1, num_heads=2, num_classes=3)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    path = convert(tmp_path / 'vit.pth', 'timm', '--num-heads', '2')
    content = torch.load(path, weights_only=True)
    passport = content['meta']['greenmim']
    assert passport['family'] == 'vit'
    assert passport['backbone']['arch']['num_heads'] == 2
    assert torch.equal(content['state_dict']['head.fc.weight'],
                       vit.head.weight)
    path.unlink()
    with pytest.raises(SystemExit, match=r"the \['window_size'\] of a vit"):
        convert(tmp_path / 'vit.pth', 'timm', '--window-size', '7')

    swin = timm.models.swin_transformer_v2.SwinTransformerV2(
        img_size=64,
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        window_size=(4, 4, 4, 2),
        num_classes=0)
    save_file(swin.state_dict(), tmp_path / 'swin.safetensors')
    windows = ('--window-size', '4', '4', '4', '2')
    path = convert(tmp_path / 'swin.safetensors', 'timm', *windows,
                   '--pretrained-window-size', '3')
    passport = torch.load(path, weights_only=True)['meta']['greenmim']
    assert passport['window_size'] == [4, 4, 4, 2]
    assert passport['backbone']['pretrained_window_sizes'] == [3, 3, 3, 3]
    path.unlink()
    with pytest.raises(SystemExit, match='say the windows by --window-size'):
        convert(tmp_path / 'swin.safetensors', 'timm')


def test_truncated_file(convert, tmp_path):
    src = save_as_authors(tmp_path / 'theirs.pth', official_weights())
    src.write_bytes(src.read_bytes()[:9999])
    with pytest.raises(SystemExit, match='cannot read .*theirs.pth'):
        convert(src)


def test_suffix(run_tool):
    with pytest.raises(SystemExit, match='suffix .pth, which MMEngine'):
        run_tool(TOOLS / 'import_checkpoint.py', PATH, '--from', 'greenmim',
                 '--out', 'a.safetensors')


def test_command_line():
    """The source has no default, and faults end with a status."""
    done = subprocess.run(
        [sys.executable,
         str(TOOLS / 'import_checkpoint.py'),
         str(PATH)],
        capture_output=True,
        text=True)
    assert done.returncode == 2
    assert '--from' in done.stderr
