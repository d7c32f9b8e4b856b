# Copyright (c) greenmim authors. All rights reserved.
"""Dense masked image modelling against MMPretrain's SimMIM, and by hand."""
import copy

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from safetensors.torch import load_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from greenmim.models import MaskTokenMIM
from greenmim.models.masking import random_mask
from greenmim.ops import patchify
from tests.conftest import CHECKOUT
from tests.micro import SWIN_ARCH, plan_of

SWIN = dict(
    arch=SWIN_ARCH,
    img_size=64,
    drop_path_rate=0.,
    stage_cfgs=[dict(block_cfgs=dict(window_size=w)) for w in (4, 4, 4, 2)])


def build(backbone, **kwargs):
    model = MaskTokenMIM(
        backbone,
        **dict(
            dict(
                neck=dict(
                    type='greenmim.LinearNeck',
                    in_channels=64,
                    out_channels=3072),
                head=dict(
                    type='greenmim.GreenMIMHead',
                    norm_pix=False,
                    loss=dict(type='PixelReconstructionLoss',
                              criterion='L1'))), **kwargs))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=.1)
    return model


def test_loss_is_that_of_mmpretrains_simmim():
    """Same weights, mask and images."""
    torch.manual_seed(0)
    ours = build(dict(type='mmpretrain.SwinTransformer', **SWIN))
    theirs = MODELS.build(
        dict(
            type='mmpretrain.SimMIM',
            backbone=dict(type='mmpretrain.SimMIMSwinTransformer', **SWIN),
            neck=dict(
                type='mmpretrain.SimMIMLinearDecoder',
                in_channels=64,
                encoder_stride=32),
            head=dict(
                type='mmpretrain.SimMIMHead',
                patch_size=4,
                loss=dict(
                    type='PixelReconstructionLoss', criterion='L1',
                    channel=3))))
    theirs.backbone.load_state_dict(
        dict(ours.backbone.state_dict(), mask_token=ours.mask_token))
    # The pixels of a unit: (row, column, channel) here, (channel, row,
    # column) in the pixel shuffle there.
    order = torch.arange(3072).view(32, 32, 3).permute(2, 0, 1).flatten()
    weight, bias = ours.neck.linear.weight, ours.neck.linear.bias
    theirs.neck.decoder[0].weight.data = weight[order, :, None, None].data
    theirs.neck.decoder[0].bias.data = bias[order].data

    images = torch.randn(3, 3, 64, 64)
    mask = random_mask(3, (2, 2), 0.5)
    assert not (mask == mask[0]).all()
    pred = ours.decode(ours.encode(images, plan_of(ours, images, mask)))
    loss = ours.head.loss(pred, images, mask)
    fine = mask.repeat_interleave(8, 1).repeat_interleave(8, 2).float()
    their_pred = theirs.neck(theirs.backbone(images, fine)[0])
    expected = theirs.head.loss(their_pred, images, fine)
    torch.testing.assert_close(pred, patchify(their_pred, 32))
    torch.testing.assert_close(loss, expected)

    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.mask_token.grad,
                               theirs.backbone.mask_token.grad)


@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_pixel_tokens_by_hand(scope):
    model = build(
        dict(type='mmpretrain.SwinTransformer', **SWIN),
        mask_token='pixel',
        mask_scope=scope)
    images = torch.randn(3, 3, 64, 64)
    mask = random_mask(1 if scope == 'batch' else 3, (2, 2), 0.5)
    encoded = model.encode(images, plan_of(model, images, mask))
    covered = images.clone()
    for b in range(3):
        for y in range(64):
            for x in range(64):
                if mask[b % len(mask), y // 32, x // 32]:
                    covered[b, :, y, x] = model.mask_token[0, :, 0, 0]
    feature, = model.backbone(covered)
    torch.testing.assert_close(encoded.latent,
                               feature.flatten(2).transpose(1, 2))
    assert encoded.layout.num_visible == 4


def test_calls_of_the_backbone_are_unmasked():
    """Outside the algorithm, after an error, and those of a copy."""
    model = build(dict(type='mmpretrain.SwinTransformer', **SWIN))
    model.eval()
    images = torch.randn(2, 3, 64, 64)
    expected = model(images)[0]
    plan = plan_of(model, images)
    model.encode(images, plan)
    assert torch.equal(model(images)[0], expected)
    assert torch.equal(model.backbone(x=images)[0], expected)
    with pytest.raises(ValueError, match='size'):
        model.encode(images[..., :32], plan)
    assert torch.equal(model(images)[0], expected)

    copied = copy.deepcopy(model)
    torch.nn.init.ones_(copied.mask_token)
    assert not torch.equal(
        copied.encode(images, plan).latent,
        model.encode(images, plan).latent)


def test_pixel_tokens_of_a_backbone_without_patch_embedding():
    model = build(
        dict(type='mmpretrain.ResNet', depth=18, base_channels=8),
        mask_token='pixel')
    images, mask = torch.randn(2, 3, 64, 64), random_mask(2, (2, 2), 0.5)
    encoded = model.encode(images, plan_of(model, images, mask))
    pixels = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    feature, = model.backbone(images.where(~pixels, model.mask_token))
    torch.testing.assert_close(encoded.latent,
                               feature.flatten(2).transpose(1, 2))


def test_a_forward_that_is_computed_again_is_masked():
    """As activation checkpointing of the whole backbone does."""
    model = build(dict(type='mmpretrain.SwinTransformer', **SWIN))
    other = copy.deepcopy(model)
    forward = other.backbone.forward
    other.backbone.forward = lambda x: checkpoint(
        forward, x, use_reentrant=False)
    images = torch.randn(2, 3, 64, 64)
    plan = plan_of(model, images)
    for each in (model, other):
        each.encode(images, plan).latent.square().sum().backward()
    for (name, expected), found in zip(model.named_parameters(),
                                       other.parameters()):
        if expected.grad is not None:
            assert torch.equal(found.grad, expected.grad), name
    assert other.mask_token.grad.any()


def test_a_checkpoint_of_an_earlier_version():
    """Commit 722e5d9 wrote these weights, and this loss and gradient."""
    state = load_file(CHECKOUT / 'tests' / 'data' /
                      'mask_token_swin.safetensors')
    loss, gradient = state.pop('loss'), state.pop('gradient')
    arch = dict(embed_dims=4, depths=[1] * 4, num_heads=[1] * 4)
    model = build(
        dict(
            type='mmpretrain.SwinTransformer',
            **dict(SWIN, arch=arch, in_channels=1)),
        neck=dict(
            type='greenmim.LinearNeck', in_channels=32, out_channels=1024),
        head=dict(type='greenmim.GreenMIMHead'))
    model.load_state_dict(state, strict=True)
    y, x = torch.arange(64.)[:, None], torch.arange(64.)
    wave = torch.arange(1, 4.).view(3, 1, 1, 1)
    images = torch.sin(wave * y / 7) + torch.cos((4 - wave) * x / 11)
    masks = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 1, 0]]) > 0
    samples = [DataSample(mask=mask.view(2, 2)) for mask in masks]
    found = model.loss(images, samples)['loss']
    found.backward()
    torch.testing.assert_close(found, loss)
    torch.testing.assert_close(
        model.mask_token.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('mask_token', ['embed', 'pixel'])
def test_images_with_other_channels(mask_token):
    model = build(
        dict(type='mmpretrain.SwinTransformer', **SWIN), mask_token=mask_token)
    for channels in (1, 4):
        images = torch.randn(2, channels, 64, 64)
        with pytest.raises(ValueError, match=r'\(B, 3, H, W\).*got \(2, '):
            model.loss(images, None)
    if mask_token == 'embed':
        with pytest.raises(ValueError, match=r'\(B, 3, H, W\).*got \(2, 4'):
            model.backbone(images)


class LateConv(nn.Module):
    """Its first convolution is not the one that reads the images."""
    image_channels = 2

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(5, 64, 16, 16)
        self.first = nn.Conv2d(2, 5, 2, 2)

    def forward(self, x):
        return (self.last(self.first(x)), )


def test_channels_that_a_backbone_names():
    model = build(LateConv(), mask_token='pixel')
    assert model.mask_token.shape == (1, 2, 1, 1)
    model.encode(
        torch.randn(1, 2, 64, 64), plan_of(model, torch.empty(1, 2, 64, 64)))


@pytest.mark.parametrize('backbone, kwargs, message', [
    (dict(type='mmpretrain.ResNet',
          depth=18), dict(), "ResNet with none.*'pixel'"),
    (dict(type='mmpretrain.HiViT', arch='tiny'), dict(),
     "projection, got HiViT with one of type PatchEmbed.*'pixel'"),
    (dict(type='mmpretrain.SwinTransformer', **
          SWIN), dict(unit_size=6), r'stride \(4, 4\).*got 6'),
    (nn.Identity(), dict(mask_token='pixel'), 'Identity.*image_channels'),
    (dict(type='mmpretrain.ConvNeXt', arch='atto'), dict(mask_token='pixel'),
     r'got \[\(1, 320\)\].*gap_before_final_norm'),
])
def test_backbones_that_do_not_fit(backbone, kwargs, message):
    with pytest.raises(ValueError, match=message):
        model = build(backbone, **kwargs)
        model.loss(torch.randn(1, 3, 64, 64), None)


def test_unknown_mask_token():
    with pytest.raises(ValueError, match='embed'):
        MaskTokenMIM(dict(), dict(), dict(), mask_token='none')


VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    img_size=64,
    patch_size=16,
    out_type='raw')


def test_class_token_reaches_the_decoder():
    """The dense backbone on covered pixels, its class token apart."""
    model = MaskTokenMIM(
        VIT,
        mask_token='pixel',
        unit_size=16,
        neck=dict(
            type='greenmim.GreenMIMNeck',
            in_channels=16,
            embed_dims=16,
            num_heads=2,
            out_channels=108,
            pos_embed=False,
            mask_token=False,
            class_token=True),
        head=dict(
            type='greenmim.GreenMIMHead',
            unit_size=16,
            target=dict(type='greenmim.HOGTarget')))
    images = torch.randn(2, 3, 32, 64)
    mask = random_mask(2, (2, 4), 0.75)
    encoded = model.encode(images, plan_of(model, images, mask))
    covered = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    raw = model.backbone(torch.where(covered, model.mask_token, images))[-1]
    assert torch.equal(encoded.class_token, raw[:, 0])
    assert torch.equal(encoded.latent, raw[:, 1:])
    pred = model.neck(raw[:, 1:], encoded.layout, raw[:, 0])
    assert torch.equal(model.decode(encoded), pred)
    assert pred.shape == (2, 8, 108)
    loss = model.loss(images, None)['loss']
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())

    model.backbone.out_type = 'featmap'
    with pytest.raises(ValueError, match="got none.*out_type='raw'"):
        model.loss(images, None)
