# Copyright (c) greenmim authors. All rights reserved.
import copy

import pytest
import torch
from torch.nn import functional as F

from greenmim.models import EMATarget
from tests.micro import SWIN_ARCH, micro_model

BACKBONE = dict(
    type='greenmim.GreenMIMSwinTransformer',
    arch=SWIN_ARCH,
    window_size=2,
    drop_path_rate=0.5)
NECK = dict(
    type='greenmim.GreenMIMNeck',
    in_channels=64,
    embed_dims=32,
    num_heads=4,
    out_channels=64)


def model_with(**target):
    torch.manual_seed(0)
    model = micro_model(
        backbone=BACKBONE,
        neck=NECK,
        head=dict(
            type='greenmim.GreenMIMHead',
            target=dict(type='greenmim.EMATarget', **target)))
    return model.train()


def test_the_teacher_is_the_average_of_the_students():
    model = model_with(momentum=0.1)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 0.1)
    expected = None
    for _ in range(3):
        student = copy.deepcopy(model.backbone.state_dict())
        model.loss(torch.randn(2, 3, 64, 64), None)['loss'].backward()
        optimizer.step()
        if expected is None:
            expected = student  # begins as a copy
        else:
            for name, value in student.items():
                if value.is_floating_point():
                    expected[name] = 0.9 * expected[name] + 0.1 * value
    teacher = model.head.target.teacher
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None for p in teacher.parameters())
    for name, value in teacher.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize('norm', [True, False])
def test_the_values_are_the_features_of_unmasked_images(norm):
    model = model_with(norm=norm)
    model.eval()
    images = torch.randn(2, 3, 64, 96)
    feature = model.backbone(images)[-1]
    expected = feature.flatten(2).transpose(1, 2)
    if norm:
        expected = F.layer_norm(expected, [64])
    torch.testing.assert_close(model.head.construct_target(images), expected)
    # In evaluation, the teacher does not follow.
    before = model.head.construct_target(images)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(1.)
    assert torch.equal(model.head.construct_target(images), before)


def test_a_resumed_run_has_the_same_teacher():
    model, images = model_with(), torch.randn(2, 3, 64, 64)
    model.loss(images, None)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(1.1)
    model.loss(images, None)
    other = model_with()
    other.load_state_dict(model.state_dict())
    other.eval(), model.eval()
    assert torch.equal(
        other.head.construct_target(images),
        model.head.construct_target(images))
    assert other.head.target.teacher.steps == 2


def test_it_belongs_to_an_algorithm():
    with pytest.raises(ValueError, match=r'attach\(algorithm\)'):
        EMATarget()(torch.zeros(1, 3, 64, 64))
