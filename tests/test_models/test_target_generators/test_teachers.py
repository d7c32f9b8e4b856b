# Copyright (c) greenmim authors. All rights reserved.
"""Teachers of other libraries, built from files, against those libraries."""
import json
import sys
from importlib import import_module

import pytest
import torch
from torch.nn import functional as F

from greenmim.models import TeacherTarget, TransformersTeacher
from tests.conftest import skip_or_fail
from tests.micro import PREPROCESSOR, micro_model

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def library(name):
    try:
        return import_module(name)
    except ImportError:
        skip_or_fail(f'{name} is not installed')


def timm_teacher(tmp_path, name, **kwargs):
    timm = library('timm')
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **kwargs).eval()
    file = tmp_path / 'timm.pth'
    torch.save(model.state_dict(), file)
    cfg = dict(
        type='greenmim.TimmTeacher',
        model_name=name,
        checkpoint=str(file),
        **kwargs)
    return model, cfg


def dinov2(tmp_path):
    """A tiny DINOv2 in a folder, as ``save_pretrained`` writes it."""
    transformers = library('transformers')
    torch.manual_seed(0)
    model = transformers.Dinov2Model(
        transformers.Dinov2Config(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=14)).eval()
    model.save_pretrained(tmp_path)
    transformers.BitImageProcessor(
        image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    return model, dict(
        type='greenmim.TransformersTeacher', folder=str(tmp_path))


def attached(cfg, **preprocessor):
    """A teacher's target in an algorithm, and the preprocessor."""
    model = micro_model(
        randomise=False,
        head=dict(
            type='greenmim.GreenMIMHead',
            target=dict(type='greenmim.TeacherTarget', backbone=cfg)),
        data_preprocessor=dict(PREPROCESSOR, **preprocessor))
    return model.head.target, model.data_preprocessor


@pytest.mark.parametrize('to_rgb', [True, False])
def test_timm_sees_its_own_normalisation(tmp_path, to_rgb):
    """A ViT with patches of 16 px: 2 x 2 features a unit, no resizing."""
    teacher, cfg = timm_teacher(
        tmp_path, 'vit_tiny_patch16_224', depth=2, img_size=64)
    target, preprocessor = attached(
        cfg, mean=[100., 120., 140.], std=[50., 60., 70.], to_rgb=to_rgb)
    bgr = torch.randint(256, (2, 3, 96, 64)).float()
    images = preprocessor(dict(inputs=bgr, data_samples=None))['inputs']
    images = images if torch.is_tensor(images) else images[0]
    actual = target(images)

    rgb = bgr.flip(1) / 255  # timm's ViT is normalised by 0.5 and 0.5
    feature = teacher_map(teacher, (rgb - 0.5) / 0.5, 16)
    expected = feature.unflatten(2, (3, 2)).unflatten(4, (2, 2)).mean((3, 5))
    expected = expected.flatten(2).transpose(1, 2)
    torch.testing.assert_close(
        actual, F.layer_norm(expected, [192]), atol=2e-4, rtol=1e-4)


def teacher_map(vit, images, patch):
    """Tokens of a timm ViT on images of any size, its own way."""
    import timm
    size = images.shape[2:]
    other = timm.create_model(
        'vit_tiny_patch16_224', depth=2, num_classes=0, img_size=tuple(size))
    state = vit.state_dict()
    state['pos_embed'] = timm.layers.resample_abs_pos_embed(
        state['pos_embed'], [side // patch for side in size])
    other.load_state_dict(state)
    with torch.no_grad():
        tokens = other.eval().forward_features(images)[:, 1:]
    return tokens.transpose(1, 2).unflatten(2,
                                            [side // patch for side in size])


def test_images_are_scaled_to_the_grid_of_the_units(tmp_path):
    """Patches of 14 px: a unit of 32 px becomes 2 x 2 patches of 28 px."""
    teacher, cfg = dinov2(tmp_path)
    target, preprocessor = attached(cfg)
    bgr = torch.randint(256, (1, 3, 64, 96)).float()
    images = preprocessor(dict(inputs=bgr, data_samples=None))['inputs']
    images = images if torch.is_tensor(images) else images[0]
    actual = target(images)

    rgb = F.interpolate(
        bgr.flip(1) / 255, (56, 84), mode='bicubic', antialias=True)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    with torch.no_grad():
        tokens = teacher((rgb - mean) / std).last_hidden_state[0, 1:]
    for unit in range(6):
        y, x = unit // 3 * 2, unit % 3 * 2
        inside = [6 * (y + i) + x + j for i in range(2) for j in range(2)]
        expected = F.layer_norm(tokens[inside].mean(0), [16])
        torch.testing.assert_close(
            actual[0, unit], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', ['resnet18', 'convnext_atto'])
def test_convolutional_networks_of_timm(tmp_path, name):
    teacher, cfg = timm_teacher(tmp_path, name)
    target, preprocessor = attached(
        cfg,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = teacher.forward_features(images).flatten(2).transpose(1, 2)
    if name == 'resnet18':
        expected = F.layer_norm(expected, expected.shape[-1:])
        torch.testing.assert_close(
            target(images), expected, atol=1e-3, rtol=1e-3)
    assert target(images).shape == expected.shape


@pytest.mark.parametrize('kind, stride', [('ViT', 16), ('ConvNext', 32),
                                          ('Swin', 8)])
def test_other_networks_of_transformers(tmp_path, kind, stride):
    """Of another image size than they were trained on."""
    transformers = library('transformers')
    options = dict(hidden_size=16, num_hidden_layers=1, image_size=32,
                   num_attention_heads=2, patch_size=16)  # yapf: disable
    if kind == 'ConvNext':
        options = dict(hidden_sizes=[8, 8, 8, 16], depths=[1] * 4)
    elif kind == 'Swin':
        options = dict(
            embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
    torch.manual_seed(0)
    config = getattr(transformers, f'{kind}Config')(**options)
    model = getattr(transformers, f'{kind}Model')(config).eval()
    model.save_pretrained(tmp_path)
    transformers.BitImageProcessor(
        image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    teacher = TransformersTeacher(str(tmp_path)).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found = teacher(images)
        if kind == 'ViT':
            expected = model(images, interpolate_pos_encoding=True)
            expected = expected.last_hidden_state[:, 1:].transpose(1, 2)
            expected = expected.reshape(2, 16, 4, 6)
        else:
            expected = model(images).last_hidden_state
            if kind == 'Swin':
                expected = expected.transpose(1, 2).reshape(2, 16, 8, 12)
    assert teacher.stride == stride
    assert found.shape == (2, 16, 64 // stride, 96 // stride)
    torch.testing.assert_close(found, expected)


def test_a_network_that_drops_tokens_is_refused(tmp_path):
    transformers = library('transformers')
    model = transformers.ViTMAEModel(
        transformers.ViTMAEConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=64,
            patch_size=16))
    model.save_pretrained(tmp_path)
    transformers.BitImageProcessor(
        image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='4 x 4 patches, got 5 tokens'):
        TransformersTeacher(str(tmp_path)).eval()(torch.zeros(1, 3, 64, 64))


def test_what_is_missing_is_named(tmp_path):

    def refused(error, match, **cfg):
        with pytest.raises(error, match=match):
            TeacherTarget(cfg).init_weights()

    refused(
        FileNotFoundError,
        'weights of resnet18 in a file.*nowhere',
        type='greenmim.TimmTeacher',
        model_name='resnet18',
        checkpoint='nowhere.pth')
    _, cfg = dinov2(tmp_path)
    refused(
        FileNotFoundError,
        'config.json',
        type='greenmim.TransformersTeacher',
        folder=str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match=r'attach\(algorithm\)'):
        TeacherTarget(cfg)(torch.zeros(1, 3, 64, 64))
    # A file that lacks a layer.
    config = json.loads((tmp_path / 'config.json').read_text())
    config['num_hidden_layers'] = 3
    (tmp_path / 'config.json').write_text(json.dumps(config))
    refused(ValueError, 'all weights of Dinov2Model', **cfg)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    cfg = dict(type='greenmim.TimmTeacher', model_name='x', checkpoint='x.pth')
    with pytest.raises(ImportError, match='pip install timm'):
        TeacherTarget(cfg).init_weights()
