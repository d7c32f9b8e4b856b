# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS

from greenmim.models import TeacherTarget
from tests.micro import SWIN_ARCH, micro_model

SWIN = dict(
    type='SwinTransformer',
    arch=SWIN_ARCH,
    pad_small_map=True,
    drop_path_rate=0.5)
VIT = dict(
    type='VisionTransformer',
    arch=dict(
        embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
    img_size=64,
    patch_size=16)


@pytest.fixture
def saved(tmp_path):
    """Save random weights of a backbone, name them in its config."""

    def save(cfg):
        torch.manual_seed(0)
        backbone = MODELS.build(cfg)
        file = tmp_path / 'teacher.pth'
        state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
        torch.save(dict(state_dict=state), file)
        backbone.eval()
        init = dict(
            type='Pretrained', checkpoint=str(file), prefix='backbone.')
        return backbone, dict(cfg, init_cfg=init)

    return save


@pytest.mark.parametrize('norm', [True, False])
@pytest.mark.parametrize(
    'cfg', [SWIN, dict(VIT, out_type='featmap')], ids=['Swin', 'ViT'])
def test_by_loops(saved, cfg, norm):
    teacher, cfg = saved(cfg)
    images = torch.randn(2, 3, 64, 64)
    target = TeacherTarget(cfg, norm=norm)(images)
    feature = teacher(images)[-1].detach()
    side = feature.shape[-1] // 2
    assert target.shape == (2, 4, feature.shape[1])
    for b in range(2):
        for unit in range(4):
            y, x = unit // 2 * side, unit % 2 * side
            expected = feature[b, :, y:y + side, x:x + side].mean((1, 2))
            if norm:
                expected = expected - expected.mean()
                var = expected.square().mean()
                expected = expected / (var + 1e-5).sqrt()
            torch.testing.assert_close(target[b, unit], expected)


def test_the_teacher_stays_as_it_is(saved):
    """Through initialisation, training mode, a step and a checkpoint."""
    teacher, cfg = saved(SWIN)
    model = micro_model(
        randomise=False,
        head=dict(
            type='greenmim.GreenMIMHead',
            target=dict(type='greenmim.TeacherTarget', backbone=cfg)),
        neck=dict(
            type='greenmim.GreenMIMNeck',
            in_channels=64,
            embed_dims=32,
            num_heads=4,
            out_channels=64))
    assert isinstance(model.head, BaseModule)
    model.init_weights()
    model.train()
    inside, = model.head.target._teacher
    assert not any(module.training for module in inside.modules())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.loss(torch.randn(2, 3, 64, 64), None)['loss'].backward()
    optimizer.step()
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(inside.state_dict()[name], tensor), name
    assert all(parameter.grad is None for parameter in inside.parameters())
    assert not [name for name in model.state_dict() if 'teacher' in name]
    assert not list(model.head.target.parameters())


def test_without_weights():
    for cfg in (SWIN, dict(SWIN, init_cfg=dict(type='Xavier'))):
        with pytest.raises(ValueError, match='a teacher with weights'):
            TeacherTarget(cfg)


def test_a_missing_file_is_found_among_several_heads():
    init = dict(type='Pretrained', checkpoint='nowhere.pth')
    target = dict(
        type='greenmim.TeacherTarget', backbone=dict(SWIN, init_cfg=init))
    head = MODELS.build(
        dict(
            type='greenmim.SumOfHeads',
            heads=[dict(type='greenmim.GreenMIMHead', target=target)],
            channels=[64]))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        head.init_weights()


def test_a_teacher_of_which_a_part_is_not_in_the_file(saved, tmp_path):
    _, cfg = saved(SWIN)
    file = tmp_path / 'teacher.pth'

    def expect(match, **changes):
        with pytest.raises(ValueError, match=match):
            TeacherTarget(dict(cfg, **changes)).init_weights()

    init = dict(type='Pretrained', checkpoint=str(file))
    count = len(dict(MODELS.build(SWIN).named_parameters()))
    expect("none of which fits; .* prefix, as 'backbone.'", init_cfg=init)
    arch = dict(SWIN['arch'], embed_dims=16)
    expect('shape', arch=arch)
    state = torch.load(file, weights_only=True)['state_dict']
    del state['backbone.norm3.bias']
    torch.save(dict(state_dict=state), file)
    expect(f'for 1 of {count} parameters, norm3.bias')


@pytest.mark.parametrize('cfg, unit_size, message', [(VIT, 32, 'featmap'),
                                                     (SWIN, 16, 'unit grid')])
def test_maps_that_do_not_fit(saved, cfg, unit_size, message):
    target = TeacherTarget(saved(cfg)[1], unit_size=unit_size)
    with pytest.raises(ValueError, match=message):
        target(torch.randn(1, 3, 64, 64))


def test_cannot_be_drawn(saved):
    target = TeacherTarget(saved(SWIN)[1])
    with pytest.raises(ValueError, match='SumOfHeads'):
        target.to_images(torch.randn(1, 4, 64), torch.randn(1, 3, 64, 64))
