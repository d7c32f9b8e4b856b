# Copyright (c) greenmim authors. All rights reserved.
"""What an encoder hands to every kind of decoder, and to measurements."""
import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from greenmim.evaluation import held_out_loss
from greenmim.models import (ConvNeck, FusionNeck, GreenMIMNeck, HOGTarget,
                             LocalReconstructionNeck)
from tests.micro import micro_config, micro_model, plan_of

CHANNELS = [8, 16, 32, 64]
SMALL = dict(embed_dims=16, num_heads=2)
STAGES = dict(micro_config()['backbone'], out_indices=(0, 1, 2, 3))
VIT = dict(
    type='greenmim.GreenMIMVisionTransformer',
    arch=dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    img_size=64,
    patch_size=16,
    unit_size=32,
    out_type='raw')
NECKS = dict(
    transformer=lambda: GreenMIMNeck(64, **SMALL),
    convolution=lambda: ConvNeck(in_channels=64, embed_dims=16),
    fusion=lambda: FusionNeck(CHANNELS, **SMALL),
    local=lambda: LocalReconstructionNeck(CHANNELS, [1000, 2000, 70, 2], **
                                          SMALL))


def stage_model(neck):
    """A model whose encoder norms all stages."""
    model = micro_model(
        backbone=STAGES,
        neck=dict(type='greenmim.GreenMIMNeck', in_channels=64, **SMALL))
    model.neck = neck
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize('name', NECKS)
def test_a_neck_reads_latent_or_stages(name):
    model = stage_model(NECKS[name]())
    images = torch.randn(2, 3, 64, 96)
    plan = plan_of(model, images)
    encoded = model.encode(images, plan)
    stages = model.backbone.forward_stages(images, plan)
    assert torch.equal(encoded.latent, model.backbone(images, plan))
    assert encoded.class_token is None and encoded.layout is plan.layout
    read = stages if name in ('fusion', 'local') else encoded.latent
    for mask in (plan.layout, plan.layout.masked):
        assert torch.equal(model.decode(encoded), model.neck(read, mask))


@torch.no_grad()
@pytest.mark.parametrize('name', NECKS)
def test_held_out_loss_of_every_neck(name):
    model = stage_model(NECKS[name]()).train()
    model.image_size = (32, 32)
    images = torch.randn(3, 3, 64, 96)
    plan = plan_of(model, images)
    batches = [
        dict(
            inputs=part,
            data_samples=[DataSample(metainfo=dict(mask_plan=plan))])
        for part in (images[:2], images[2:])
    ]
    loss, features, _ = held_out_loss(model, batches)
    assert model.training and model.image_size == (32, 32)
    model.eval()
    samples = [DataSample(metainfo=dict(mask_plan=plan))]
    model.image_size = None
    expected = model(images, samples, mode='loss')['loss']
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(features, model.backbone(images, plan).mean(1))


@torch.no_grad()
def test_class_token_of_a_visible_only_encoder():
    torch.manual_seed(0)
    neck = dict(
        type='greenmim.GreenMIMNeck',
        in_channels=4 * 16,
        class_token=False,
        **SMALL)
    model = micro_model(backbone=VIT, neck=neck)
    images = torch.randn(2, 3, 64, 64)
    plan = plan_of(model, images)
    encoded = model.encode(images, plan)
    assert encoded.class_token.shape == (2, 16)
    expected = model.neck(encoded.latent, plan.layout)
    assert torch.equal(model.decode(encoded), expected)

    neck = dict(neck, in_channels=16, class_token=True)
    model = micro_model(backbone=dict(VIT, unit_size=16), neck=neck)
    encoded = model.encode(images, plan_of(model, images))
    pred = model.decode(encoded)
    expected = model.neck(encoded.latent, encoded.layout, encoded.class_token)
    assert torch.equal(pred, expected)
    other = model.neck(encoded.latent, encoded.layout, encoded.class_token + 1)
    assert not torch.equal(pred, other)


class ForeignNeck(nn.Module):
    """A decoder that knows nothing of this package but its interface."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3072)

    def forward(self, latent, mask):
        B, L = len(latent), mask.visible[0].numel()
        return self.linear(latent.mean(1, keepdim=True)).expand(B, L, -1)


def test_a_neck_of_another_package():
    model = MODELS.build(micro_config())
    model.neck = ForeignNeck()
    model(torch.randn(2, 3, 64, 64), None, mode='loss')['loss'].backward()
    assert model.neck.linear.weight.grad.any()


@pytest.mark.parametrize('fields', [
    dict(),
    dict(
        backbone=STAGES,
        neck=dict(type='greenmim.FusionNeck', in_channels=CHANNELS, **SMALL)),
    dict(
        backbone=VIT,
        neck=dict(type='greenmim.GreenMIMNeck', in_channels=64, **SMALL)),
    dict(
        backbone=dict(VIT, unit_size=16),
        neck=dict(
            type='greenmim.GreenMIMNeck',
            in_channels=16,
            out_channels=768,
            class_token=True,
            **SMALL),
        head=dict(type='greenmim.GreenMIMHead', unit_size=16)),
    dict(type='greenmim.MaskTokenMIM'),
    dict(type='greenmim.MaskTokenMIM', mask_token='pixel'),
])
def test_hooks_of_the_backbone_run_once_a_step(fields):
    """In every algorithm, forward and backward."""
    model = micro_model(**fields)
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append('forward'))
    model.backbone.register_full_backward_hook(
        lambda *_: calls.append('backward'))
    images = torch.randn(2, 3, 128, 128)
    for _ in range(2):
        model(images, None, mode='loss')['loss'].backward()
    assert calls == 2 * ['forward', 'backward']


@pytest.mark.parametrize('build', [
    lambda: ConvNeck(class_token=True),
    lambda: ConvNeck(pos_embed=True),
    lambda: FusionNeck(CHANNELS, class_token=True, **SMALL),
    lambda: LocalReconstructionNeck(
        CHANNELS, [1] * 4, class_token=True, **SMALL),
])
def test_options_without_effect_are_refused(build):
    with pytest.raises(TypeError, match='class_token|pos_embed'):
        build()


def test_a_reconstruction_computes_no_target_twice(monkeypatch):
    """That of the image, and that of what a naive filling knows of it."""
    model = micro_model(
        neck=dict(micro_config()['neck'], out_channels=432),
        head=dict(
            type='greenmim.GreenMIMHead',
            target=dict(type='greenmim.HOGTarget')))
    calls = []
    forward = HOGTarget.forward
    monkeypatch.setattr(HOGTarget, 'forward', lambda self, x:
                        (calls.append(x), forward(self, x))[1])
    model.reconstruct(torch.randn(2, 3, 64, 64))
    assert len(calls) == 2 and not torch.equal(*calls)
