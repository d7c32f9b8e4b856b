# Copyright (c) greenmim authors. All rights reserved.
"""Swin V2 of SimMIM, Microsoft and timm: the same features and loss here.

timm's model is the oracle. Microsoft's names are made of its by a table of
this file.
"""
import re

import pytest
import torch
from mmpretrain.models import SwinTransformerV2
from torch import nn
from torch.nn import functional as F

from greenmim.models import GreenMIMSwinTransformerV2
from greenmim.weights import (TARGETS, convert_decoder_or_head, fit_to,
                              read_backbone, read_source, tensors_for,
                              write_weights)
from greenmim.weights.swin_v2 import SwinV2
from tests.micro_checkpoint import (assert_close, load_backbone, load_whole,
                                    make_classifier, micro_recipe, predict,
                                    randomise, save_model)

timm = pytest.importorskip('timm')

ARCH = dict(
    embed_dims=8,
    depths=[2, 2, 2, 1],
    num_heads=[1, 2, 2, 4],
    extra_norm_every_n_blocks=0)
# Of maps of 16, 8, 4 and 2 tokens.
WINDOWS = [4, 4, 4, 2]
RECIPE = 'simmim_swin-v2-huge-w12_32xb64-amp-steplr-800e_in1k-192px.py'


def make_timm(windows=WINDOWS, size=64, pretrained=(0, 0, 0, 0), **changes):
    """timm's model, random, in evaluation mode and in double precision."""
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


@pytest.fixture
def microsoft(tmp_path):
    """The backbone of Microsoft's names, as it is read."""
    tensors = in_names_of_microsoft(make_timm())
    return read_backbone(save_model(tmp_path / 'a.pth', tensors), 'swin')


@torch.no_grad()
def assert_same_features(backbone, other, size=64):
    x = torch.randn(2, 3, size, size).double()
    expected = other.forward_features(x).permute(0, 3, 1, 2)
    ours = load_backbone(GreenMIMSwinTransformerV2, backbone)
    assert_close(ours(x)[-1], expected)


@pytest.mark.parametrize('name', ['swin', 'simmim'])
def test_features_of_microsofts_names(tmp_path, name):
    model = make_timm()
    tensors = in_names_of_microsoft(model)
    backbone = read_backbone(save_model(tmp_path / 'a.pth', tensors), name)
    assert isinstance(backbone.family, SwinV2) and backbone.norm_eps == 1e-5
    assert backbone.settings['arch'] == ARCH
    assert backbone.windows == WINDOWS
    assert backbone.settings['pretrained_window_sizes'] == WINDOWS
    masks = {key for key in tensors if key.endswith('attn_mask')}
    assert masks and set(backbone.left_out) == masks
    assert_same_features(backbone, model)
    back, unexpected = backbone.family.to_layout(backbone.tensors, name)
    assert not unexpected and back.keys() == tensors.keys() - masks
    assert all(torch.equal(back[key], tensors[key]) for key in back)


@pytest.mark.parametrize('windows, pretrained', [
    (WINDOWS, None),
    ([8, 8, 4, 2], [4, 4, 4, 2]),
])
def test_features_of_timm(tmp_path, windows, pretrained):
    """It stores no buffers, so that the windows have to be given."""
    model = make_timm(windows, pretrained=pretrained or (0, ) * 4)
    source = save_model(tmp_path / 'a.pth', model.state_dict())
    hints = dict(window_size=windows)
    if pretrained:
        hints['pretrained_window_sizes'] = pretrained
    backbone = read_backbone(source, 'timm', hints=hints)
    assert backbone.windows == windows
    assert backbone.settings['pretrained_window_sizes'] == (
        pretrained or windows)
    assert_same_features(backbone, model)
    target = TARGETS['timm']
    back = tensors_for(fit_to(backbone, target), target)
    assert back.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(back[name], tensor), name
    if pretrained:
        wrong = read_backbone(source, 'timm', hints=dict(window_size=windows))
        with pytest.raises(AssertionError):
            assert_same_features(wrong, model)


def test_another_window_has_the_buffers_of_its_model(tmp_path, microsoft):
    """Weights stay, offsets keep their scale, as timm has it too."""
    target = TARGETS['mmpretrain']
    fitted = fit_to(microsoft, target, [8, 8, 8, 4])
    assert not fitted.resized and fitted.windows == [8, 8, 8, 4]
    assert fitted.settings['pretrained_window_sizes'] == WINDOWS
    for name, tensor in fitted.tensors.items():
        assert torch.equal(tensor, microsoft.tensors[name]) != ('relative_'
                                                                in name), name
    assert_same_features(fitted, make_timm([8, 8, 8, 4], 128, WINDOWS), 128)
    # And back, from the file alone.
    write_weights(tmp_path / 'b.pth', fitted, 'mmpretrain',
                  read_source(tmp_path / 'a.pth'), 'swin')
    again = read_backbone(read_source(tmp_path / 'b.pth'))
    assert again.settings == fitted.settings
    back = fit_to(again, target, WINDOWS)
    assert back.tensors.keys() == microsoft.tensors.keys()
    for name, tensor in microsoft.tensors.items():
        assert torch.equal(back.tensors[name],
                           tensor.to(back.tensors[name])), name
    with pytest.raises(ValueError, match='for each of 4 stages'):
        fit_to(microsoft, target, [4, 4])


def test_mmpretrain_makes_its_own_buffers(microsoft):
    """It drops the buffers of a file and reports them as missing."""
    fitted = fit_to(microsoft, TARGETS['mmseg'])
    assert fitted.windows == WINDOWS and len(fitted.added) == 6
    found = SwinTransformerV2(**fitted.settings).load_state_dict(
        fitted.tensors, strict=False)
    assert not found.unexpected_keys
    assert all('.relative_' in name for name in found.missing_keys)


@torch.no_grad()
def test_a_whole_simmim_with_extra_norms(tmp_path):
    """Every tensor of the recipe's model, decoder and token with it.

    Its encoder is compared with timm's but for the extra norms, which are a
    function of the main branch that timm's blocks lack.
    """
    model = micro_recipe(RECIPE, dict(ARCH, extra_norm_every_n_blocks=2), 64,
                         **{'backbone.window_size': WINDOWS})
    extra = {
        name
        for name in model.backbone.state_dict()
        if re.search(r'blocks\.\d+\.norm3', name)
    }
    assert len(extra) == 3 * 2
    twin = make_timm(norm_layer=nn.LayerNorm)
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
    whole.update(decoder.state_dict(prefix='decoder.0.'))
    source = save_model(tmp_path / 'a.pth', whole)
    backbone = read_backbone(source, 'simmim')
    assert backbone.settings['arch']['extra_norm_every_n_blocks'] == 2
    _, coverages = convert_decoder_or_head('simmim', source, backbone)
    assert [part.total for part in coverages] == [2, 1]
    load_whole(model, 'simmim', source, backbone)

    images = torch.randn(2, 3, 64, 64).double()
    mask = torch.tensor([[True, False], [True, True]])
    x = twin.patch_embed(images)
    fine = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)
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
    masked = mask.repeat_interleave(32, 0).repeat_interleave(32, 1)
    expected = (pred - images).abs()[..., masked].mean()
    _, loss = predict(model, images, mask)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)

    with pytest.raises(ValueError, match='but timm lacks .*norm3'):
        tensors_for(backbone, TARGETS['timm'])


@torch.no_grad()
def test_fine_tuned(tmp_path):
    model = make_timm(num_classes=5)
    # timm's classifier has another name.
    tensors = {
        name.replace('head.fc.', 'head.'): tensor
        for name, tensor in in_names_of_microsoft(model).items()
    }
    source = save_model(tmp_path / 'a.pth', tensors)
    backbone = read_backbone(source, 'simmim')
    classifier = load_whole(
        make_classifier(
            'greenmim.GreenMIMSwinTransformerV2',
            backbone,
            64,
            neck=dict(type='mmpretrain.GlobalAveragePooling')), 'simmim',
        source, backbone)
    x = torch.randn(2, 3, 64, 64).double()
    assert_close(classifier.head(classifier.extract_feat(x)), model(x))
