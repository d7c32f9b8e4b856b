# Copyright (c) greenmim authors. All rights reserved.
"""Mask ratio and image size that change in the course of a run."""
from types import SimpleNamespace

import pytest
import torch
from mmpretrain.registry import MODELS

from greenmim.engine import ImageSizeHook, MaskRatioHook
from greenmim.models import GreenMIM
from tests.micro import SWIN_ARCH, micro_config, micro_model, micro_runner

SIZES = dict(
    type='greenmim.ImageSizeHook', sizes=[64, 96, 128], milestones=[1, 2])
RATIOS = dict(type='greenmim.MaskRatioHook', start=0.5, end=0.75)


@pytest.fixture
def steps(monkeypatch):
    """Image size, visible units and loss of every step."""
    seen = []
    encode, loss = GreenMIM.encode, GreenMIM.loss

    def record_encode(self, images, plan):
        seen.append([tuple(images.shape[2:]), plan.layout.units.tolist()])
        return encode(self, images, plan)

    def record_loss(self, *args):
        losses = loss(self, *args)
        seen[-1].append(losses['loss'].item())
        return losses

    monkeypatch.setattr(GreenMIM, 'encode', record_encode)
    monkeypatch.setattr(GreenMIM, 'loss', record_loss)
    return seen


def train(work_dir,
          hooks,
          resume=False,
          num_workers=0,
          num_views=8,
          train_cfg=dict(type='greenmim.ResumableEpochLoop', max_epochs=3)):
    micro_runner(
        work_dir,
        dict(
            num_workers=num_workers,
            dataset=dict(
                type='greenmim.SamplePhotographs',
                num_views=num_views,
                pipeline=[
                    dict(type='RandomResizedCrop', scale=128),
                    dict(type='PackInputs')
                ]),
            sampler=dict(type='greenmim.SeededSampler', shuffle=True)),
        [dict(type='greenmim.PlanAheadHook'), *hooks],
        dict(mask_scope='image'),
        dict(interval=1, max_keep_ckpts=9),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        resume=bool(resume),
        load_from=str(resume) if resume else None,
        train_cfg=train_cfg).train()


def test_a_progressive_run(tmp_path, steps):
    """Sizes change, keys do not; a resumed run is bit-identical."""
    train(tmp_path / 'whole', [SIZES, RATIOS], num_workers=1)
    assert [size for size, *_ in steps
            ] == [(64, 64)] * 2 + [(96, 96)] * 2 + [(128, 128)] * 2
    kept = [len(units[0]) for _, units, _ in steps]
    assert kept == [2, 2, 3, 3, 4, 4]  # of 4, 9 and 16

    file = tmp_path / 'whole' / 'epoch_3.pth'
    state = torch.load(file, weights_only=True)['state_dict']
    assert state.keys() == micro_model().state_dict().keys()
    cfg = dict(micro_config()['backbone'], type='SwinTransformer')
    plain = MODELS.build(cfg)
    plain.load_state_dict(
        {
            k[len('backbone.'):]: v
            for k, v in state.items() if k.startswith('backbone.')
        },
        strict=True)

    whole = list(steps)
    steps.clear()
    train(
        tmp_path / 'resumed', [SIZES, RATIOS],
        resume=tmp_path / 'whole' / 'epoch_1.pth')
    assert steps == whole[2:]


def test_iterations(tmp_path, steps):
    train(
        tmp_path, [
            dict(
                SIZES, sizes=[[64, 128], 128], milestones=[3], by_epoch=False),
            dict(RATIOS, begin=1, until=3, by_epoch=False)
        ],
        num_views=20,
        train_cfg=dict(by_epoch=False, max_iters=5))
    assert [size for size, *_ in steps] == [(64, 128)] * 3 + [(128, 128)] * 2
    kept = [len(units[0]) for _, units, _ in steps]
    # ratios 0.5, 0.5, 0.625 of 8 units, then 0.75 of 16
    assert kept == [4, 4, 3, 4, 4]


def test_epochs_in_a_run_of_iterations(tmp_path):
    with pytest.raises(ValueError, match='by_epoch=False of ImageSizeHook'):
        train(tmp_path, [SIZES], train_cfg=dict(by_epoch=False, max_iters=5))


def test_images_are_scaled_down_by_averages():
    """By two, the antialiased triangle weighs four pixels 1, 3, 3, 1."""
    model = micro_model(mask_ratio=0.)
    images = torch.randn(2, 3, 64, 64)
    model.image_size = (32, 32)
    weights = torch.tensor([1., 3., 3., 1.]) / 8
    expected = torch.zeros(2, 3, 32, 32)
    for y in range(32):
        for x in range(32):
            rows = [r for r in range(2 * y - 1, 2 * y + 3)]
            cols = [c for c in range(2 * x - 1, 2 * x + 3)]
            total = 0
            for r, wr in zip(rows, weights):
                for c, wc in zip(cols, weights):
                    if 0 <= r < 64 and 0 <= c < 64:
                        expected[:, :, y, x] += wr * wc * images[:, :, r, c]
                        total += wr * wc
            expected[:, :, y, x] /= total
    loss = model.loss(images, None)['loss']
    model.image_size = None
    torch.testing.assert_close(loss, model.loss(expected, None)['loss'])
    # What is no training step sees whole images: features, held-out losses.
    images = torch.randn(1, 3, 128, 128)
    dense, = model.backbone(images)
    model.eval()
    whole = model.loss(images, None)['loss']
    model.image_size = (32, 32)
    assert torch.equal(model.extract_feat(images)[0], dense)
    assert torch.equal(model.loss(images, None)['loss'], whole)
    model.train()
    assert not torch.equal(model.loss(images, None)['loss'], whole)


@pytest.mark.parametrize('backbone', [
    dict(type='SwinTransformer', pad_small_map=True),
    dict(type='greenmim.GreenMIMSwinTransformer', pad_small_map=True),
    dict(
        type='SwinTransformer',
        stage_cfgs=[
            dict(block_cfgs=dict(window_size=w)) for w in (4, 4, 4, 2)
        ])
])
def test_dense_backbones_grow_too(backbone):
    """With windows that fit the smallest map, or padding."""
    model = MODELS.build(
        dict(
            type='greenmim.MaskTokenMIM',
            backbone=dict(arch=SWIN_ARCH, window_size=4, **backbone),
            neck=dict(type='greenmim.LinearNeck', in_channels=64),
            head=dict(type='greenmim.GreenMIMHead')))
    model.train()
    hook = ImageSizeHook([64, 96, 128], [1, 2])
    seen = []
    model.neck.register_forward_pre_hook(
        lambda neck, inputs: seen.append(inputs[0].shape[1]))
    keys = list(model.state_dict())
    for epoch in range(3):
        hook.change(model, epoch)
        loss = model.loss(torch.randn(2, 3, 128, 128), None)['loss']
        loss.backward()
        assert loss.isfinite()
    assert seen == [4, 9, 16] and list(model.state_dict()) == keys


def test_images_that_are_too_small():
    model = micro_model()
    model.image_size = (128, 128)
    with pytest.raises(ValueError, match='enlarge the crops'):
        model.loss(torch.randn(2, 3, 64, 128), None)


def test_a_small_map_reads_the_middle_of_the_table():
    """Windows shrink; the table and so the checkpoint stay as they are."""
    large = micro_model(
        backbone=dict(micro_config()['backbone'],
                      window_size=4)).eval().backbone
    small = MODELS.build(
        dict(micro_config()['backbone'], window_size=[4, 4, 4, 2])).eval()
    state = large.state_dict()
    for name, table in state.items():
        if name.startswith('stages.3') and 'bias_table' in name:
            middle = table.view(7, 7, -1)[2:5, 2:5].reshape(9, -1)
            state[name] = middle
        elif name.startswith('stages.3') and 'position_index' in name:
            state[name] = small.state_dict()[name]
    small.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    mask = torch.tensor([[[False, True], [False, False]]])
    assert torch.equal(large(images, mask), small(images, mask))


class TestArguments:
    model = SimpleNamespace(unit_size=32)

    @pytest.mark.parametrize('sizes, milestones, text', [
        ([64], [1], 'but the first'),
        ([64, 96, 128], [2, 1], 'ascending'),
        ([64, 96, 128], [1, 1], 'ascending'),
        ([64, 96], [0], 'ascending'),
    ])
    def test_bad_schedules(self, sizes, milestones, text):
        with pytest.raises(ValueError, match=text):
            ImageSizeHook(sizes, milestones)

    def test_sizes_and_milestones_that_do_not_fit_the_run(self):
        with pytest.raises(ValueError, match='multiples of the mask unit'):
            ImageSizeHook([64, 100], [1]).check(self.model, 5)
        with pytest.raises(ValueError, match='within the run of 5 epochs'):
            ImageSizeHook([64, 96], [5]).check(self.model, 5)

    @pytest.mark.parametrize('kwargs, text', [
        (dict(start=1.), 'ratios in'),
        (dict(end=-0.1), 'ratios in'),
        (dict(begin=3, until=3), 'begin < until'),
        (dict(begin=-1), 'begin < until'),
    ])
    def test_bad_ratios(self, kwargs, text):
        with pytest.raises(ValueError, match=text):
            MaskRatioHook(**dict(dict(start=0.5, end=0.7), **kwargs))

    def test_given_masks_have_their_own_ratio(self):
        sampler = dict(type='greenmim.GivenMask', masks=[[[0, 1], [1, 1]]])
        with pytest.raises(ValueError, match='leave MaskRatioHook out'):
            MaskRatioHook(0.5, 0.7).check(micro_model(mask_sampler=sampler), 5)

    @pytest.mark.parametrize('now, ratio', [(0, 0.4), (2, 0.4), (4, 0.5),
                                            (6, 0.6), (9, 0.6)])
    def test_the_ratio_is_linear(self, now, ratio):
        hook = MaskRatioHook(0.4, 0.6, begin=2, until=6)
        model = micro_model()
        hook.check(model, 10)
        hook.change(model, now)
        assert model.mask_planner.mask_ratio == pytest.approx(ratio)

    def test_it_ends_with_the_run(self):
        hook, model = MaskRatioHook(0.4, 0.6), micro_model()
        hook.check(model, 11)
        hook.change(model, 10)
        assert model.mask_planner.mask_ratio == pytest.approx(0.6)
