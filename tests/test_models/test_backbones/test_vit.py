# Copyright (c) greenmim authors. All rights reserved.
"""What the Vision Transformer has beyond the common tests."""
import pytest
import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.selfsup import MAEViT

from greenmim.models import GreenMIM, GreenMIMVisionTransformer
from greenmim.ops import sincos_positions
from tests.backbones.checks import build, draw_images, draw_mask, randomise
from tests.backbones.vit import VIT

MICRO = dict(VIT.micro, img_size=32)


def test_equals_the_encoder_of_mae():
    """MMPretrain's, with the mask that it draws."""
    mae = randomise(MAEViT(**MICRO)).double()
    model = GreenMIMVisionTransformer(**MICRO).double()
    model.load_state_dict(mae.state_dict(), strict=True)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    latent, mask, restore = mae(images)
    outs = model.forward_stages(images, mask.view(3, 4, 4))
    # the place of every visible patch among MAE's shuffled tokens
    place = restore[mask == 0].view(3, -1, 1).expand(-1, -1, 16)
    expected = latent[:, 1:].gather(1, place)
    assert (outs[-1].flatten(1, 2) - expected).abs().max() <= 1e-10
    assert (outs.class_token - latent[:, 0]).abs().max() <= 1e-10


@pytest.mark.parametrize('out_type', ['cls_token', 'raw', 'featmap'])
def test_out_type_does_not_change_the_latent(out_type):
    model = build(VIT, out_type=out_type)
    images = draw_images(model, (32, 64))
    mask = draw_mask('image', 2, (4, 8))
    assert torch.equal(model(images, mask), build(VIT)(images, mask))


def test_without_a_class_token():
    model = build(VIT, with_cls_token=False, out_type='featmap')
    images = draw_images(model, (32, 64))
    outs = model.forward_stages(images, draw_mask('image', 2, (4, 8)))
    assert outs.class_token is None


def test_fixed_positions():
    """MAE's for any grid, through the initialisation, and never trained."""
    cfg = dict(MICRO, img_size=(32, 48), fixed_positions=True)
    model = GreenMIMVisionTransformer(**cfg)
    expected = sincos_positions((4, 6), 16, torch.float32, 'cpu')
    for _ in range(2):
        assert not model.pos_embed.requires_grad
        assert torch.equal(model.pos_embed[0, 1:], expected)
        assert model.pos_embed[0, 0].eq(0).all()
        assert model.cls_token.std() > 0
        model.init_weights()
    mae = MAEViT(**MICRO)
    mae.init_weights()
    square = GreenMIMVisionTransformer(**MICRO, fixed_positions=True)
    # MMPretrain's has rows where MAE's own code has columns.
    swapped = mae.pos_embed[0, 1:].view(4, 4, 16).transpose(0, 1).flatten(0, 1)
    assert torch.allclose(square.pos_embed[0, 1:], swapped, atol=1e-6)
    cfg['arch'] = dict(cfg['arch'], embed_dims=18)
    with pytest.raises(ValueError, match='multiple of 4'):
        GreenMIMVisionTransformer(**cfg)


def test_fixed_positions_of_other_widths_are_refused():
    arch = dict(MICRO['arch'], embed_dims=18, num_heads=2)
    with pytest.raises(ValueError, match='multiple of 4.*got 18'):
        GreenMIMVisionTransformer(
            **dict(MICRO, arch=arch, fixed_positions=True)).init_weights()


def test_learned_positions_start_as_the_parents():
    states = []
    for kind in (GreenMIMVisionTransformer, VisionTransformer):
        torch.manual_seed(0)
        model = kind(**MICRO)
        model.init_weights()
        states.append(model.state_dict())
    for name, value in states[1].items():
        assert torch.equal(states[0][name], value), name


def test_units_of_several_patches():
    """The decoder embeds the tokens of a unit together."""
    model = GreenMIM(
        backbone=dict(
            type='greenmim.GreenMIMVisionTransformer', unit_size=16, **MICRO),
        neck=dict(
            type='greenmim.GreenMIMNeck',
            in_channels=4 * 16,
            embed_dims=16,
            num_heads=2,
            out_channels=16 * 16 * 3),
        head=dict(type='greenmim.GreenMIMHead', unit_size=16))
    loss = model(torch.randn(2, 3, 64, 64), None, mode='loss')['loss']
    loss.backward()
    assert model.backbone.patch_embed.projection.weight.grad.ne(0).any()
    latent = torch.randn(1, 4, 4, 16)
    mask = draw_mask('shared', 1, (4, 4))
    assert torch.equal(
        model.neck(latent.flatten(1, 2), mask),
        model.neck(latent.flatten(2), mask))


def test_checkpointing_is_of_the_dense_forward_too():
    model = build(VIT, with_cp=True, compile_blocks=True)
    other = build(VIT)
    images = draw_images(model, (64, 64))
    results = []
    for net in (model, other):
        net.train()
        net(images)[0].square().sum().backward()
        assert not any('forward' in vars(layer) for layer in net.layers)
        results.append([param.grad for param in net.parameters()])
    for actual, expected in zip(*results):
        assert torch.allclose(actual, expected, rtol=1e-12)
