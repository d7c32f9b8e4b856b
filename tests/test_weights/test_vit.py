# Copyright (c) greenmim authors. All rights reserved.
"""ViT of FastMIM, SimMIM and timm: the same features and losses here.

The models of timm are the oracle, and so are the few lines that make a
pre-training of them.
"""
from functools import partial

import pytest
import torch
from mmpretrain.models import BEiTViT, VisionTransformer
from torch import nn
from torch.nn import functional as F

from greenmim.models import GreenMIMVisionTransformer
from greenmim.weights import (TARGETS, fit_to, read_backbone, read_source,
                              tensors_for, write_weights)
from greenmim.weights.beit import BEiT
from greenmim.weights.vit import ViT
from tests.micro_checkpoint import (BACKBONES, assert_close, load_backbone,
                                    load_whole, make_classifier, micro_recipe,
                                    predict, randomise, recorded, save_model,
                                    save_training)

timm = pytest.importorskip('timm')

ARCH = dict(embed_dims=24, num_layers=3, num_heads=6, feedforward_channels=96)
WIDTH = dict(
    img_size=64,
    patch_size=16,
    embed_dim=24,
    depth=3,
    num_heads=6,
    norm_layer=partial(nn.LayerNorm, eps=1e-6))
SHARED = dict(
    use_abs_pos_emb=False, use_shared_rel_pos_bias=True, init_values=0.1)


def plain(**changes):
    """A plain ViT, random, in evaluation mode and in double precision."""
    arguments = {**WIDTH, 'num_classes': 0, **changes}
    torch.manual_seed(0)
    kind = timm.models.vision_transformer.VisionTransformer
    return randomise(kind(**arguments)).double()


def relative(**changes):
    """The same with relative positions."""
    arguments = {**WIDTH, 'num_classes': 0, **SHARED, **changes}
    torch.manual_seed(0)
    return randomise(timm.models.beit.Beit(**arguments)).double()


def with_index(tensors, prefix='rel_pos_bias.'):
    """SimMIM's files hold the index that timm computes: row and column are
    the offset of two patches on their map, and the class token is the first.
    """
    side = 4
    row, col = torch.arange(side**2) // side, torch.arange(side**2) % side
    index = torch.empty(side**2 + 1, side**2 + 1, dtype=torch.long)
    index[1:, 1:] = ((row[:, None] - row + side - 1) * (2 * side - 1) +
                     (col[:, None] - col + side - 1))
    index[0], index[:, 0], index[0, 0] = 49, 50, 51
    return {**tensors, f'{prefix}relative_position_index': index}


def assert_round_trip(backbone, layout, theirs):
    back, unexpected = backbone.family.to_layout(backbone.tensors, layout)
    assert not unexpected and back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in back)


@pytest.mark.parametrize('changes', [
    {},
    dict(global_pool='avg'),
    dict(init_values=0.1),
    dict(class_token=False, global_pool='avg'),
], ids=['token', 'avg', 'layer-scale', 'no-class-token'])  # yapf: disable
@torch.no_grad()
def test_features_equal_those_of_timm(tmp_path, changes):
    model = plain(**changes)
    backbone = read_backbone(
        save_model(tmp_path / 'a.pth', model.state_dict()),
        'timm',
        hints=dict(num_heads=6))
    assert isinstance(backbone.family, ViT)
    assert backbone.settings['arch'] == ARCH
    assert backbone.settings['img_size'] == 64
    assert_round_trip(backbone, 'timm', model.state_dict())
    x = torch.randn(2, 3, 64, 64).double()
    pooled = 'global_pool' in changes
    expected = model(x) if pooled else model.forward_features(x)
    out_type = dict(out_type='avg_featmap' if pooled else 'raw')
    ours = load_backbone(VisionTransformer, backbone, **out_type)
    assert_close(ours(x)[0], expected)
    arch = dict(ARCH, num_heads=3)
    wrong = load_backbone(VisionTransformer, backbone, arch=arch, **out_type)
    assert not torch.allclose(wrong(x)[0], expected)


@pytest.mark.parametrize('shared', [True, False])
@torch.no_grad()
def test_relative_features_equal_those_of_timm(tmp_path, shared):
    model = relative(
        use_shared_rel_pos_bias=shared, use_rel_pos_bias=not shared)
    source = save_model(tmp_path / 'a.pth', model.state_dict())
    backbone = read_backbone(source, 'timm')
    assert isinstance(backbone.family, BEiT)
    assert backbone.settings['arch'] == ARCH
    assert backbone.settings['use_shared_rel_pos_bias'] == shared
    target = TARGETS['timm']
    theirs = tensors_for(fit_to(backbone, target), target)
    assert theirs.keys() == model.state_dict().keys()
    assert_round_trip(backbone, 'timm', theirs)
    x = torch.randn(2, 3, 64, 64).double()
    assert_close(load_backbone(BEiTViT, backbone)(x)[0], model(x))


MASK = torch.tensor([[True, False], [True, True]])
FINE = MASK.repeat_interleave(2, 0).repeat_interleave(2, 1)
PIXELS = FINE.repeat_interleave(16, 0).repeat_interleave(16, 1)


@torch.no_grad()
def test_a_whole_simmim(tmp_path):
    """The recipe's own model takes every tensor and has the same loss."""
    encoder = relative(global_pool='token', use_fc_norm=False)
    torch.manual_seed(1)
    decoder = nn.Conv2d(24, 16 * 16 * 3, 1).double()
    token = torch.randn(1, 1, 24).double()
    tensors = encoder.state_dict(prefix='encoder.')
    tensors = with_index(tensors, 'encoder.rel_pos_bias.')
    tensors.update(decoder.state_dict(prefix='decoder.0.'))
    source = save_model(tmp_path / 'a.pth', {
        **tensors, 'encoder.mask_token': token
    })
    backbone = read_backbone(source, 'simmim')
    assert backbone.norm_eps == 1e-6 and not backbone.coverage.faults
    model = load_whole(
        micro_recipe('simmim_vit-base-p16_8xb256-amp-steplr-800e_in1k.py',
                     ARCH, 24), 'simmim', source, backbone)
    images = torch.randn(2, 3, 64, 64).double()
    x = encoder.patch_embed(images)
    x = torch.where(FINE.view(1, -1, 1), token, x)
    x = torch.cat([encoder.cls_token.expand(len(x), -1, -1), x], 1)
    bias = encoder.rel_pos_bias()
    for block in encoder.blocks:
        x = block(x, shared_rel_pos_bias=bias)
    x = encoder.norm(x)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    pred = F.pixel_shuffle(decoder(x), 16)
    expected = (pred - images).abs()[..., PIXELS].mean()
    ours, loss = predict(model, images, MASK)
    units = pred.unfold(2, 32, 32).unfold(3, 32, 32)
    assert_close(ours,
                 units.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert_round_trip(backbone, 'simmim',
                      with_index(encoder.state_dict(), 'rel_pos_bias.'))


@torch.no_grad()
def test_a_whole_fastmim(tmp_path):
    """Encoder and decoder read a class token, the encoder has 6 heads."""
    encoder = plain()
    encoder.pos_embed[:, 0] = 0.
    decoder = plain(embed_dim=32, depth=1, num_heads=1)
    torch.manual_seed(1)
    embed, pred = nn.Linear(24, 32).double(), nn.Linear(32, 108).double()
    token = torch.randn(1, 3, 1, 1).double()
    tensors = encoder.state_dict(prefix='encoder.')
    for name, module in (('embed', embed), ('blocks', decoder.blocks),
                         ('norm', decoder.norm), ('pred', pred)):
        tensors.update(module.state_dict(prefix=f'decoder_{name}.'))
    tensors['mask_token'] = token
    source = save_model(tmp_path / 'a.pth', tensors)
    backbone = read_backbone(source, 'fastmim')
    assert backbone.settings['arch'] == ARCH and backbone.norm_eps == 1e-6
    assert_round_trip(backbone, 'fastmim', encoder.state_dict())
    model = load_whole(
        micro_recipe(
            'fastmim_vit-base-p16_8xb512-amp-coslr-800e_in1k-128px.py', ARCH,
            24, **{
                'neck.embed_dims': 32,
                'neck.num_heads': 1
            }), 'fastmim', source, backbone)
    images = torch.randn(2, 3, 64, 64).double()
    x = encoder.forward_features(torch.where(PIXELS, token, images))
    for block in decoder.blocks:
        x = block(embed(x) if block is decoder.blocks[0] else x)
    expected = pred(decoder.norm(x))[:, 1:]
    assert_close(predict(model, images, FINE)[0], expected)


@pytest.mark.parametrize('name, kind, model', [
    # A table for each layer there.
    ('simmim', 'mmpretrain.BEiTViT', partial(
        relative, use_shared_rel_pos_bias=False, use_rel_pos_bias=True)),
    # Without the norm of a class token; heads have 64 channels.
    *((name, 'mmpretrain.VisionTransformer', partial(
        plain, num_heads=1, global_pool='avg'))
      for name in ('fastmim', 'timm')),
])  # yapf: disable
@torch.no_grad()
def test_fine_tuned(tmp_path, name, kind, model):
    """The classifier gives the same scores."""
    model = model(num_classes=5)
    tensors = dict(model.state_dict())
    if name == 'simmim':
        for i in range(3):
            tensors = with_index(tensors, f'blocks.{i}.attn.')
    source = save_model(tmp_path / 'a.pth', tensors)
    backbone = read_backbone(source, name)
    if name != 'simmim':
        assert backbone.settings['arch']['num_heads'] == 1
        assert not backbone.settings['final_norm']
    classifier = load_whole(
        make_classifier(kind, backbone, 24), name, source, backbone)
    x = torch.randn(2, 3, 64, 64).double()
    assert_close(classifier.head(classifier.extract_feat(x)), model(x))


@pytest.mark.parametrize('own', [True, False])
def test_maps_have_no_norm(tmp_path, own):
    """For detection and segmentation, out of either training."""
    tensors = (plain() if own else plain(global_pool='avg')).state_dict()
    backbone = read_backbone(save_model(tmp_path / 'a.pth', tensors), 'timm')
    fitted = fit_to(backbone, TARGETS['mmseg'])
    norm = 'ln1' if own else 'ln2'
    assert fitted.dropped == (f'{norm}.weight', f'{norm}.bias')
    model = VisionTransformer(**{**fitted.settings, 'out_indices': [0, 1, 2]})
    model.load_state_dict(fitted.tensors, strict=True)
    assert len(model(torch.randn(1, 3, 96, 64))) == 3
    whole = fit_to(backbone, TARGETS['mmpretrain'])
    assert not whole.dropped and whole.tensors.keys() == backbone.tensors.keys(
    )


def test_recorded_heads_and_sizes_are_kept(tmp_path):
    """Config and metadata record what tensors do not determine."""
    changes = dict(img_size=[32, 64], fixed_positions=True, out_indices=-1)
    config = dict(BACKBONES['vit'], **changes)
    torch.manual_seed(0)
    model = GreenMIMVisionTransformer(**{
        k: v
        for k, v in config.items() if k != 'type'
    })
    source = read_source(
        save_training(
            tmp_path / 'a.pth', model, meta=recorded('vit', **changes)))
    backbone = read_backbone(source)
    assert backbone.settings['arch'] == config['arch']
    assert backbone.settings['img_size'] == backbone.img_size == [32, 64]
    fitted = fit_to(backbone, TARGETS['safetensors'])
    write_weights(tmp_path / 'b.safetensors', fitted, 'safetensors', source)
    again = read_backbone(read_source(tmp_path / 'b.safetensors'))
    assert again.settings == backbone.settings
    assert all(
        torch.equal(again.tensors[k], v) for k, v in backbone.tensors.items())
