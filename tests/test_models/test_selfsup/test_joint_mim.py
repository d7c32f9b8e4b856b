# Copyright (c) greenmim authors. All rights reserved.
"""Classification and masked image modelling as one loss."""
import copy

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from PIL import Image

from greenmim.models import JointMIM
from tests.micro import SWIN_ARCH
from tests.recipes import find, load

BACKBONE = dict(
    type='greenmim.GreenMIMSwinTransformer',
    arch=SWIN_ARCH,
    window_size=4,
    drop_path_rate=0.)
CLASSIFIER = dict(
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=64))
MIM = dict(
    type='greenmim.GreenMIM',
    neck=dict(
        type='greenmim.GreenMIMNeck',
        in_channels=64,
        embed_dims=32,
        num_heads=4),
    head=dict(type='greenmim.GreenMIMHead', norm_pix=False))
RECIPE = find('joint_swin-2stages-p2-w4_1xb64-bf16-coslr-800i_folder-32px')


def joint(**options):
    return JointMIM(**copy.deepcopy(
        dict(dict(backbone=BACKBONE, mim=MIM, **CLASSIFIER), **options)))


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 128, 128, generator=generator)
    samples = []
    for i in range(2):
        sample = DataSample().set_gt_label(i)
        mask = torch.rand(16, generator=generator).argsort().view(4, 4) < 10
        sample.set_field(mask, 'mask', field_type='data')
        samples.append(sample)
    return images, samples


@pytest.mark.parametrize('weights', [
    dict(classes=0.1, mim=0.9), dict(classes=1., mim=0.25)
], ids=['published', 'others'])  # yapf: disable
def test_it_is_the_weighted_sum_of_the_two(weights):
    """Loss and gradients of a classifier and of GreenMIM, one by one."""
    model = joint(weights=weights).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=.1)
    images, samples = batch()
    images = images.double()
    losses, _ = model.parse_losses(model.loss(images, samples))
    losses.backward()

    classifier = MODELS.build(
        dict(type='ImageClassifier', backbone=BACKBONE,
             **CLASSIFIER)).double()
    mim = MODELS.build(dict(MIM, backbone=BACKBONE)).double()
    state = model.state_dict()
    assert not any(name.startswith('mim.backbone') for name in state)
    classifier.load_state_dict({
        name: value
        for name, value in state.items() if not name.startswith('mim.')
    })
    mim.load_state_dict({
        name.replace('mim.', '', 1): value
        for name, value in state.items()
        if name.startswith(('mim.', 'backbone.'))
    })
    parts = [
        classifier.loss(images, samples)['loss'],
        mim.loss(images, samples)['loss']
    ]
    torch.testing.assert_close(
        losses,
        weights['classes'] * parts[0] + weights['mim'] * parts[1],
        rtol=1e-12,
        atol=0)
    for part in parts:
        part.backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    for name, gradient in gradients.items():
        expected = torch.zeros_like(gradient)
        for weight, twin, prefix in ((weights['classes'], classifier, ''),
                                     (weights['mim'], mim, 'mim.')):
            found = dict(twin.named_parameters())
            own = name
            if prefix and not name.startswith('backbone.'):
                own = name[len(prefix):] if name.startswith(prefix) else ''
            if own in found and found[own].grad is not None:
                expected += weight * found[own].grad
        torch.testing.assert_close(
            gradient, expected, rtol=1e-9, atol=1e-12, msg=name)
        assert gradient.any(), name


@pytest.mark.parametrize('options, message', [
    (dict(weights=dict(classes=1.)), 'classes and mim'),
    (dict(weights=dict(classes=-1., mim=1.)), 'of 0 or more'),
    (dict(mim=dict(MIM, backbone=BACKBONE)), 'without a backbone'),
    (dict(mim=dict(type='ImageClassifier')), 'of this project'),
])  # yapf: disable
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        joint(**options)


def test_the_recipe_trains_and_tests(tmp_path):
    """By MMEngine's runner, from labelled images to an accuracy."""
    for part in 'train', 'test':
        for label, colour in enumerate([(250, 0, 0), (0, 0, 250)]):
            folder = tmp_path / 'data' / part / str(label)
            folder.mkdir(parents=True)
            for i in range(6):
                Image.new('RGB', (40, 36), colour).save(folder / f'{i}.png')
    cfg = copy.deepcopy(load(RECIPE))
    cfg.merge_from_dict({
        'work_dir':
        str(tmp_path / 'run'),
        'train_dataloader.batch_size':
        6,
        'train_dataloader.dataset.data_root':
        str(tmp_path / 'data'),
        'test_dataloader.dataset.data_root':
        str(tmp_path / 'data'),
        'model.head.num_classes':
        2,
        'data_preprocessor.num_classes':
        2,
        'train_cfg.max_iters':
        12,
        'param_scheduler.0.end':
        2,
        'param_scheduler.1.begin':
        2,
        'default_hooks.logger.interval':
        1,
        'test_evaluator.topk': (1, ),
    })
    runner = Runner.from_cfg(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    for name in 'loss_classes', 'loss_mim':
        values = scalars[f'train/{name}'].data[0]
        assert values[-3:].mean() < values[:3].mean(), name
    assert runner.test()['accuracy/top1'] == 100
