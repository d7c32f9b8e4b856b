# Copyright (c) greenmim authors. All rights reserved.
"""Swin V2 of SimMIM, Microsoft and timm: the same features and loss here.

timm's model is the oracle. Microsoft's names are made of its by a table of
this file.
"""
import re

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import SwinTransformerV2
from torch import nn
from torch.nn import functional as F

from greenmim.models import GreenMIMSwinTransformerV2
from greenmim.registry import MODELS
from greenmim.weights import (TARGETS, convert_rest, fit_to, passport_of,
                              read_backbone, read_source, tensors_for,
                              write_weights)
from greenmim.weights.swin_v2 import SWIN_V2
from tests.conftest import CHECKOUT
from tests.micro import plan_of
from tests.micro_checkpoint import randomise

timm = pytest.importorskip('timm')

ARCH = dict(
    embed_dims=8,
    depths=[2, 2, 2, 1],
    num_heads=[1, 2, 2, 4],
    extra_norm_every_n_blocks=0)
# Of maps of 16, 8, 4 and 2 tokens.
WINDOWS = [4, 4, 4, 2]
RECIPE = (
    CHECKOUT / 'configs' / 'simmim' /
    'simmim_swin-v2-huge-w12_32xb64-amp-steplr-800e_in1k-192px.py')


def theirs(windows=WINDOWS, size=64, pretrained=(0, 0, 0, 0), **changes):
    torch.manual_seed(0)
    model = timm.models.swin_transformer_v2.SwinTransformerV2(
        **{
            **dict(
                img_size=size,
                num_classes=0,
                embed_dim=ARCH['embed_dims'],
                depths=ARCH['depths'],
                num_heads=ARCH['num_heads'],
                window_size=windows,
                pretrained_window_sizes=pretrained),
            **changes
        })
    return randomise(model).double()


def in_names_of_microsoft(model):
    """Merging ends a stage there, and the tables of offsets are stored."""
    stored = ('relative_coords_table', 'relative_position_index', 'attn_mask')
    buffers = {
        name: buffer
        for name, buffer in model.named_buffers() if name.endswith(stored)
    }
    renamed = {}
    for name, tensor in {**model.state_dict(), **buffers}.items():
        match = re.match(r'layers\.(\d)(\.downsample\..*)', name)
        if match:
            name = f'layers.{int(match[1]) - 1}{match[2]}'
        renamed[name] = tensor
    return renamed


def save(path, tensors):
    torch.save(dict(model=tensors), path)
    return read_source(path)


def load(kind, backbone, **changes):
    model = kind(**{**backbone.settings, **changes}).double()
    model.load_state_dict(backbone.tensors, strict=True)
    model.eval()
    return model


@torch.no_grad()
def assert_same_features(ours, other, size=64):
    x = torch.randn(2, 3, size, size).double()
    expected = other.forward_features(x).permute(0, 3, 1, 2)
    out = ours(x)[-1]
    assert out.shape == expected.shape and expected.std() > 0.1
    assert (out - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize('name', ['swin', 'simmim'])
def test_features_of_microsofts_names(tmp_path, name):
    model = theirs()
    tensors = in_names_of_microsoft(model)
    backbone = read_backbone(save(tmp_path / 'a.pth', tensors), name)
    assert backbone.family is SWIN_V2 and backbone.norm_eps == 1e-5
    assert backbone.settings['arch'] == ARCH
    assert backbone.windows == WINDOWS
    assert backbone.settings['pretrained_window_sizes'] == WINDOWS
    masks = {key for key in tensors if key.endswith('attn_mask')}
    assert masks and set(backbone.left_out) == masks
    assert_same_features(load(GreenMIMSwinTransformerV2, backbone), model)
    back, homeless = SWIN_V2.to_layout(backbone.tensors, SWIN_V2.layouts[name])
    assert not homeless and back.keys() == tensors.keys() - masks
    assert all(torch.equal(back[key], tensors[key]) for key in back)


@pytest.mark.parametrize('windows, pretrained', [
    (WINDOWS, None),
    ([8, 8, 4, 2], [4, 4, 4, 2]),
])
def test_features_of_timm(tmp_path, windows, pretrained):
    """It stores no buffers, so that the windows have to be told."""
    model = theirs(windows, pretrained=pretrained or (0, ) * 4)
    source = save(tmp_path / 'a.pth', model.state_dict())
    known = dict(window_size=windows)
    if pretrained:
        known['pretrained_window_sizes'] = pretrained
    backbone = read_backbone(source, 'timm', known=known)
    assert backbone.windows == windows
    assert backbone.settings['pretrained_window_sizes'] == (
        pretrained or windows)
    assert_same_features(load(GreenMIMSwinTransformerV2, backbone), model)
    target = TARGETS['timm']
    back = tensors_for(fit_to(backbone, target), target)
    assert back.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(back[name], tensor), name
    with pytest.raises(ValueError, match='say the windows by --window-size'):
        read_backbone(source, 'timm')
    with pytest.raises(ValueError, match='for each of 4 stages'):
        read_backbone(source, 'timm', known=dict(window_size=[4, 4]))
    if pretrained:
        wrong = read_backbone(source, 'timm', known=dict(window_size=windows))
        with pytest.raises(AssertionError):
            assert_same_features(load(GreenMIMSwinTransformerV2, wrong), model)


def test_another_window_has_the_buffers_of_its_model(tmp_path):
    """Weights stay, offsets keep their scale, as timm has it too."""
    tensors = in_names_of_microsoft(theirs())
    backbone = read_backbone(save(tmp_path / 'a.pth', tensors), 'swin')
    target = TARGETS['mmpretrain']
    fitted = fit_to(backbone, target, [8, 8, 8, 4])
    assert not fitted.resized and fitted.windows == [8, 8, 8, 4]
    assert fitted.settings['pretrained_window_sizes'] == WINDOWS
    for name, tensor in fitted.tensors.items():
        assert torch.equal(tensor, backbone.tensors[name]) != ('relative_'
                                                               in name), name
    other = theirs([8, 8, 8, 4], 128, WINDOWS)
    assert_same_features(load(GreenMIMSwinTransformerV2, fitted), other, 128)
    # And back, from the file alone.
    write_weights(
        tmp_path / 'b.pth', fitted, target,
        passport_of(fitted, read_source(tmp_path / 'a.pth'), 'a.pth', 'swin',
                    'mmpretrain'))
    again = read_backbone(read_source(tmp_path / 'b.pth'))
    assert again.settings == fitted.settings
    back = fit_to(again, target, WINDOWS)
    assert back.tensors.keys() == backbone.tensors.keys()
    for name, tensor in backbone.tensors.items():
        assert torch.equal(back.tensors[name],
                           tensor.to(back.tensors[name])), name
    with pytest.raises(ValueError, match='for each of 4 stages'):
        fit_to(backbone, target, [4, 4])


@pytest.mark.parametrize('to', ['mmdet', 'mmseg'])
def test_norms_are_added_for_maps(tmp_path, to):
    """Their windows stay those of the stages: the classes are MMPretrain's."""
    tensors = in_names_of_microsoft(theirs())
    backbone = read_backbone(save(tmp_path / 'a.pth', tensors), 'swin')
    fitted = fit_to(backbone, TARGETS[to])
    assert fitted.windows == WINDOWS and len(fitted.added) == 6
    model = load(GreenMIMSwinTransformerV2, fitted)
    assert model.out_indices == [0, 1, 2, 3]
    assert tensors_for(fitted, TARGETS[to]).keys() == {
        f'backbone.{name}' for name in model.state_dict()}  # yapf: disable
    # MMPretrain's class drops the buffers as it loads, and keeps its own.
    found = SwinTransformerV2(**fitted.settings).load_state_dict(
        fitted.tensors, strict=False)
    assert not found.unexpected_keys
    assert all('.relative_' in name for name in found.missing_keys)


def huge(size=64, windows=WINDOWS):
    """The recipe of the huge model, in small."""
    cfg = Config.fromfile(RECIPE)
    cfg.merge_from_dict({
        'model.backbone.img_size': size,
        'model.backbone.window_size': windows,
        'model.neck.in_channels': 8 * ARCH['embed_dims']
    })
    cfg.model.backbone.arch = dict(ARCH, extra_norm_every_n_blocks=2)
    torch.manual_seed(0)
    model = randomise(MODELS.build(cfg.model)).double()
    model.eval()
    return model


@torch.no_grad()
def test_a_whole_simmim_with_extra_norms(tmp_path):
    """Every tensor of the recipe's model, decoder and token with it.

    Its encoder is compared with timm's but for the extra norms, which are a
    function of the main branch that timm's blocks lack.
    """
    model = huge()
    extra = {
        name
        for name in model.backbone.state_dict()
        if re.search(r'blocks\.\d+\.norm3', name)
    }
    assert len(extra) == 3 * 2
    twin = theirs(norm_layer=nn.LayerNorm)
    tensors = in_names_of_microsoft(twin)
    torch.manual_seed(1)
    norms = {}
    for name in sorted(extra):
        name = name.replace('stages.', 'layers.')
        size = 8 * 2**int(name.split('.')[1])
        tensors[name] = norms[name] = torch.randn(size).double()
    decoder = nn.Conv2d(64, 32 * 32 * 3, 1).double()
    token = torch.randn(1, 1, 8).double()
    whole = {f'encoder.{k}': v for k, v in tensors.items()}
    whole['encoder.mask_token'] = token
    whole.update({
        f'decoder.0.{k}': v
        for k, v in decoder.state_dict().items()
    })
    source = save(tmp_path / 'a.pth', whole)
    backbone = read_backbone(source, 'simmim')
    assert backbone.settings['arch']['extra_norm_every_n_blocks'] == 2
    rest, coverages = convert_rest('simmim', source, backbone)
    assert [part.total for part in coverages] == [2, 1]
    assert not any(part.faults for part in coverages)
    model.load_state_dict(
        {
            **{
                f'backbone.{k}': v
                for k, v in backbone.tensors.items()
            },
            **rest
        },
        strict=True)

    images = torch.randn(2, 3, 64, 64).double()
    mask = torch.tensor([[[True, False], [True, True]]])
    x = twin.patch_embed(images)
    fine = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    x = torch.where(fine[..., None], token, x)
    for i, layer in enumerate(twin.layers):
        x = layer.downsample(x)
        for j, block in enumerate(layer.blocks):
            x = block(x)
            if j % 2:
                name = f'layers.{i}.blocks.{j}.norm3'
                x = F.layer_norm(x, x.shape[-1:], norms[f'{name}.weight'],
                                 norms[f'{name}.bias'])
    pred = F.pixel_shuffle(decoder(twin.norm(x).permute(0, 3, 1, 2)), 32)
    plan = plan_of(model, images, mask)
    loss = model.head.loss(
        model.decode(model.encode(images, plan)), images, plan.layout)
    masked = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    expected = (pred - images).abs()[masked.expand_as(images)].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)

    with pytest.raises(ValueError, match='found none for .*norm3'):
        tensors_for(backbone, TARGETS['timm'])


def test_fine_tuned(tmp_path):
    model = theirs(num_classes=5)
    tensors = in_names_of_microsoft(model)
    # timm's classifier has another name.
    tensors = {
        name.replace('head.fc.', 'head.'): tensor
        for name, tensor in tensors.items()
    }
    source = save(tmp_path / 'a.pth', tensors)
    backbone = read_backbone(source, 'simmim')
    rest, (coverage, ) = convert_rest('simmim', source, backbone)
    assert coverage.total == 2 and not coverage.faults
    classifier = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='greenmim.GreenMIMSwinTransformerV2',
                **backbone.settings),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead', num_classes=5,
                in_channels=64))).double()
    classifier.load_state_dict(
        {
            **{
                f'backbone.{k}': v
                for k, v in backbone.tensors.items()
            },
            **rest
        },
        strict=True)
    classifier.eval()
    with torch.no_grad():
        x = torch.randn(2, 3, 64, 64).double()
        logits = classifier.head(classifier.extract_feat(x))
        assert (logits - model(x)).abs().max() < 1e-9


NAME = 'layers.1.blocks.1.attn.'


@pytest.mark.parametrize('changes, fault', [
    ({'v_bias': None}, r'w_msa\.v_bias: missing'),
    ({'logit_scale': torch.ones(3, 1, 1)}, r'got \(3, 1, 1\)'),
    ({'relative_coords_table': torch.ones(1, 7, 7, 2)}, 'another window or'),
    ({'relative_position_index': torch.ones(16, 16).long()}, 'another order'),
    ({'relative_coords_table': None}, 'relative_coords_table: missing'),
    ({'cpb_mlp.4.weight': torch.ones(1)}, 'cpb_mlp.4.weight: unknown'),
])  # yapf: disable
def test_damage_is_named(tmp_path, changes, fault):
    tensors = in_names_of_microsoft(theirs())
    tensors.update({NAME + key: value for key, value in changes.items()})
    tensors = {k: v for k, v in tensors.items() if v is not None}
    source = save(tmp_path / 'a.pth', tensors)
    with pytest.raises(ValueError, match=fault):
        read_backbone(source, 'swin')


def test_windows_that_the_tensors_tell(tmp_path):
    tensors = in_names_of_microsoft(theirs())
    source = save(tmp_path / 'a.pth', tensors)
    with pytest.raises(ValueError, match=r'windows \[4, 4, 4, 2\] and'):
        read_backbone(source, 'swin', known=dict(window_size=[8]))
    del tensors['patch_embed.proj.weight']
    with pytest.raises(ValueError, match='a whole Swin V2'):
        read_backbone(save(tmp_path / 'a.pth', tensors), 'swin')


@pytest.mark.parametrize('path', [
    'simmim/simmim_swin-v2-huge-w12_32xb64-amp-steplr-800e_in1k-192px.py',
    'greenmim_swin-v2-base-w8_8xb256-amp-coslr-800e_in1k.py',
    'benchmarks/classification/swin-v2-huge-w14_8xb32-amp-coslr-100e_in1k-'
    'simmim-800e.py',
])
def test_declared_settings(path):
    """Those of the recipes, and as they are read off the tensors."""
    cfg = Config.fromfile(CHECKOUT / 'configs' / path).model.backbone
    cfg.arch = dict(ARCH, extra_norm_every_n_blocks=2)
    declared = SWIN_V2.declared_settings(cfg.to_dict())
    built = SWIN_V2.build(declared)
    eps = {
        module.eps
        for module in built.modules() if isinstance(module, nn.LayerNorm)
    }
    assert eps == {1e-6 if 'base-w8' in path else 1e-5}
    inferred = SWIN_V2.infer_settings(built.state_dict(), eps.pop())
    for key, value in inferred.items():
        assert declared[key] == value, key
    with pytest.raises(ValueError, match='an arch of Swin V2'):
        SWIN_V2.declared_settings(dict(arch='titanic'))
