# Copyright (c) greenmim authors. All rights reserved.
"""Every part with every other: sampler, execution, target and decoder."""
from itertools import product

import pytest
import torch
from mmpretrain.registry import MODELS

from greenmim.models.necks.stage_necks import StageNeck
from tests.micro import NORM_CFG, SWIN_ARCH, plan_of

CHANNELS = [8, 16, 32, 64]
EXECUTIONS = {
    'visible':
    dict(
        type='greenmim.GreenMIM',
        backbone=dict(
            type='greenmim.GreenMIMSwinTransformer',
            arch=SWIN_ARCH,
            window_size=4,
            out_indices=(0, 1, 2, 3),
            drop_path_rate=0.,
            norm_cfg=NORM_CFG)),
    'embed':
    dict(type='greenmim.MaskTokenMIM', mask_token='embed'),
    'pixel':
    dict(type='greenmim.MaskTokenMIM', mask_token='pixel'),
}
for name in ('embed', 'pixel'):
    EXECUTIONS[name]['backbone'] = dict(
        type='SwinTransformer',
        arch=SWIN_ARCH,
        window_size=4,
        out_indices=(0, 1, 2, 3),
        pad_small_map=True,
        drop_path_rate=0.,
        norm_cfg=NORM_CFG)
SAMPLERS = [
    dict(type='greenmim.RandomMask'),
    dict(type='greenmim.BlockMask'),
    dict(type='greenmim.UniformMask'),
    dict(
        type='greenmim.GivenMask', masks=[[[1, 1, 0, 1]] * 3 + [[0, 1, 1, 1]]])
]
SIZE, BATCH = 128, 2


def head(target, **kwargs):
    return dict(
        type='greenmim.GreenMIMHead',
        target=dict(type=f'greenmim.{target}', **kwargs))


# name: (values of a unit, head)
HEADS = {
    'pixels': (3072, head('PixelTarget', norm=False)),
    'normalised': (3072, head('PixelTarget')),
    'hog': (432, head('HOGTarget')),
    'low frequency': (192, head('LowFrequencyTarget')),
    'teacher': (16, head('TeacherTarget')),
    'sum': (624,
            dict(
                type='greenmim.SumOfHeads',
                heads=[head('LowFrequencyTarget'),
                       head('HOGTarget')],
                channels=[192, 432],
                weights=[1., 0.5])),
}
NECKS = {
    'transformer':
    lambda out: dict(
        type='greenmim.GreenMIMNeck',
        in_channels=64,
        embed_dims=16,
        num_heads=2,
        depth=2,
        out_channels=out),
    'linear':
    lambda out: dict(
        type='greenmim.LinearNeck', in_channels=64, out_channels=out),
    'fusion':
    lambda out: dict(
        type='greenmim.FusionNeck',
        in_channels=CHANNELS,
        embed_dims=16,
        num_heads=2,
        out_channels=out),
    'local':
    lambda out: dict(
        type='greenmim.LocalReconstructionNeck',
        in_channels=CHANNELS,
        embed_dims=16,
        num_heads=2,
        out_channels=[out - 12, 6, 2, 4]),
    'convolutional':
    lambda out: dict(
        type='greenmim.ConvNeck',
        in_channels=64,
        embed_dims=16,
        out_channels=out),
}
CROSSINGS = [(execution, target, neck)
             for execution, target, neck in product(EXECUTIONS, HEADS, NECKS)
             if (execution, neck) != ('visible', 'linear')]


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """A frozen backbone with weights of its own, in a file."""
    cfg = dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 1]),
        window_size=4,
        out_indices=(1, ))
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(MODELS.build(cfg).state_dict(), file)
    return dict(cfg, init_cfg=dict(type='Pretrained', checkpoint=str(file)))


def build(execution, target, neck, sampler, teacher):
    channels, cfg = HEADS[target]
    if target == 'teacher':
        cfg = dict(cfg, target=dict(cfg['target'], backbone=teacher))
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            EXECUTIONS[execution],
            neck=NECKS[neck](channels),
            head=cfg,
            mask_sampler=sampler,
            mask_scope='image'))
    model.init_weights()
    model.train()
    return model


@pytest.mark.parametrize(
    'number, crossing',
    list(enumerate(CROSSINGS)),
    ids=['-'.join(c) for c in CROSSINGS])
def test_crossing(number, crossing, teacher):
    """Samplers take turns; each meets each execution, target and neck."""
    sampler = SAMPLERS[number % len(SAMPLERS)]
    model = build(*crossing, sampler, teacher)
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    plan = plan_of(model, images)
    assert plan.layout.num_visible == 4

    # What is masked changes no bit of what the decoder reads.
    masked = plan.layout.masked.repeat_interleave(32,
                                                  1).repeat_interleave(32,
                                                                       2)[:,
                                                                          None]
    changed = torch.where(masked, torch.randn_like(images), images)
    with torch.no_grad():
        stages = [model.encode(x, plan).stages for x in (images, changed)]
        for one, other in zip(*stages):
            assert torch.equal(one, other)

    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        pred = model.decode(model.encode(images, plan))
        loss = model.head.loss(pred, images, plan.layout)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[1] < losses[0]
    assert all(p.grad is not None for p in trained(model)), [
        name for name, p in model.named_parameters() if p.grad is None
    ]


def trained(model):
    """Norms of stages that the decoder does not read get no gradient."""
    reads_stages = isinstance(model.neck, StageNeck)
    return [
        p for name, p in model.named_parameters()
        if reads_stages or not name.startswith(
            ('backbone.norm0', 'backbone.norm1', 'backbone.norm2'))
    ]


def test_every_pair_of_parts_is_met():
    """With the samplers that take turns."""
    met = {(number % len(SAMPLERS), part)
           for number, crossing in enumerate(CROSSINGS)
           for part in crossing}
    assert len(met) == len(SAMPLERS) * (
        len(EXECUTIONS) + len(HEADS) + len(NECKS))
