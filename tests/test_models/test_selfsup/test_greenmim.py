# Copyright (c) greenmim authors. All rights reserved.
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement, InstanceData
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample

from greenmim.models import GreenMIMSwinTransformer
from greenmim.models.masking import random_mask
from greenmim.ops import VisibleLayout
from tests.micro import micro_model


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def loss_by_parts(model, images, mask):
    """The algorithm written out: backbone, neck, head."""
    latent = model.backbone(images, mask)
    pred = model.neck(latent, mask)
    return model.head.loss(pred, images, mask)


def test_is_a_self_supervisor_of_mmpretrain():
    model = micro_model()
    assert isinstance(model, BaseSelfSupervisor)
    assert type(model.data_preprocessor).__name__ == 'SelfSupDataPreprocessor'
    with pytest.raises(TypeError, match='mask_ration'):
        micro_model(mask_ration=0.6)


@pytest.mark.parametrize('channels', [1, 4])
def test_channels(channels):
    model = micro_model(in_channels=channels)
    loss = model(torch.randn(2, channels, 64, 64), None, mode='loss')['loss']
    assert loss.isfinite() and loss > 0


def test_refuses_a_ratio_that_hides_everything():
    with pytest.raises(ValueError, match='leaves a visible unit.*0.9 of 4'):
        micro_model(mask_ratio=0.9).loss(torch.randn(1, 3, 64, 64), None)


def samples_with(masks):
    samples = [DataSample() for _ in masks]
    for sample, mask in zip(samples, masks):
        sample.mask = mask
    return samples


@pytest.fixture
def layouts(monkeypatch):
    """The layouts that reach a backbone, in the order of the calls."""
    seen = []
    forward = GreenMIMSwinTransformer.forward_stages

    def record(self, x, mask):
        seen.append(mask.layout)
        return forward(self, x, mask)

    monkeypatch.setattr(GreenMIMSwinTransformer, 'forward_stages', record)
    return seen


@pytest.mark.parametrize('size', [(64, 64), (96, 160), (128, 32)])
@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_loss_is_that_of_its_parts(size, scope, layouts):
    model = micro_model(mask_scope=scope, mask_ratio=0.5)
    images = torch.randn(3, 3, *size)
    losses = model(images, None, mode='loss')
    assert losses.keys() == {'loss'}
    layout, = layouts
    assert isinstance(layout, VisibleLayout)
    grid = (size[0] // 32, size[1] // 32)
    assert layout.grid == grid
    assert layout.num_masks == (1 if scope == 'batch' else 3)
    assert layout.num_visible == grid[0] * grid[1] // 2
    expected = loss_by_parts(model, images, ~layout.visible)
    assert torch.equal(losses['loss'], expected)


def test_masks_follow_torch_seed_and_differ(layouts):
    model = micro_model(mask_scope='image')
    images = torch.randn(4, 3, 128, 128)
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model(images, None, mode='loss')
    model(images, None, mode='loss')
    first, again, other, following = [layout.units for layout in layouts]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(other, following)
    assert len(first.unique(dim=0)) > 1  # the images of a batch differ
    assert first.shape == (4, 4)  # int(16 * 0.25) units are visible


@pytest.mark.parametrize(
    'convert', [
        lambda mask: mask,
        lambda mask: mask.int(),
        lambda mask: mask.float(),
        lambda mask: mask.numpy(),
        lambda mask: mask.numpy().astype(np.int64),
        lambda mask: mask.repeat_interleave(8, 0).repeat_interleave(8, 1),
        lambda mask: InstanceData(value=mask.long()),
        lambda mask: BaseDataElement(value=mask),
    ],
    ids=[
        'bool', 'int', 'float', 'numpy-bool', 'numpy-int', 'simmim',
        'mmselfsup-instance', 'mmselfsup-base'
    ])
@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_masks_of_data_samples_are_used(convert, scope):
    model = micro_model(mask_scope=scope)
    images = torch.randn(3, 3, 64, 96)
    masks = random_mask(3, (2, 3), 0.5)
    assert len(masks.unique(dim=0)) > 1
    samples = samples_with([convert(mask) for mask in masks])
    actual = model(images, samples, mode='loss')['loss']
    assert torch.equal(actual, loss_by_parts(model, images, masks))


def test_mask_as_metainfo_is_used():
    model = micro_model()
    images, mask = torch.randn(1, 3, 64, 96), random_mask(1, (2, 3), 0.5)
    sample = DataSample(metainfo=dict(mask=mask[0]))
    actual = model(images, [sample], mode='loss')['loss']
    assert torch.equal(actual, loss_by_parts(model, images, mask))


def test_equal_masks_are_shared(layouts):
    model = micro_model(mask_scope='image')
    images, mask = torch.randn(3, 3, 64, 96), random_mask(1, (2, 3), 0.5)
    model(images, samples_with([mask[0]] * 3), mode='loss')
    assert layouts[0].num_masks == 1
    assert torch.equal(layouts[0].visible, ~mask)


def test_refuses_masks_in_some_samples():
    samples = samples_with(random_mask(1, (2, 2), 0.5)) + [DataSample()]
    with pytest.raises(ValueError, match='1 masks for 2 samples'):
        micro_model()(torch.randn(2, 3, 64, 64), samples, mode='loss')


@pytest.mark.parametrize('masks, message', [
    ([[[1, 1], [0, 0]], [[1, 0], [0, 0]]], 'same number'),
    ([[[1, 1], [1, 1]]] * 2, 'at least one visible'),
    ([[[2, 1], [0, 0]]] * 2, '0 or 1'),
    ([[[0.5, 1], [0, 0]]] * 2, '0 or 1'),
    ([[[1, 1, 0], [0, 0, 0]]] * 2, r'unit grid \(2, 2\)'),
    ([[1, 0, 0, 0]] * 2, r'shape \(M, Gh, Gw\)'),
    ([[[1, 1], [0, 0]], [[1, 0]]], r'one shape.*\(1, 2\), \(2, 2\)'),
    ([[[1, 0, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]] * 2, 'partly masked'),
    ([[[1, 1], [0, 0]], [[1, 0], [1, 0]], [[1, 0], [0, 1]]
      ], '1 mask for the batch or 2'),
])
def test_refuses_masks_that_do_not_fit(masks, message):
    samples = samples_with([torch.tensor(mask) for mask in masks])
    with pytest.raises(ValueError, match=message):
        micro_model()(torch.randn(2, 3, 64, 64), samples, mode='loss')


def test_inputs_of_mmselfsup():
    model = micro_model()
    images, masks = torch.randn(2, 3, 64, 64), random_mask(2, (2, 2), 0.5)
    expected = model(images, samples_with(masks), mode='loss')['loss']
    actual = model([images], samples_with(masks), mode='loss')['loss']
    assert torch.equal(actual, expected)
    images = torch.randn(2, 3, 128, 128)
    for got, wanted in zip(model([images]), model(images)):
        assert torch.equal(got, wanted)
    with pytest.raises(ValueError, match='list of 2'):
        model([images, images], samples_with(masks), mode='loss')


def test_tensor_mode_is_the_dense_backbone():
    model, images = micro_model(), torch.randn(2, 3, 128, 256)
    feats = model(images, mode='tensor')
    assert len(feats) == 1 and feats[0].shape == (2, 64, 4, 8)
    assert torch.equal(feats[0], model.backbone(images)[0])


def test_train_step_on_collated_data():
    """Preprocessing, masks of the samples and an update, as in a run."""
    model = micro_model(
        data_preprocessor=dict(mean=[10, 20, 30], std=[2, 4, 8], to_rgb=True))
    raw = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    masks = random_mask(2, (2, 2), 0.5)
    batch = default_collate([
        dict(inputs=image, data_samples=sample)
        for image, sample in zip(raw, samples_with(masks))
    ])
    mean = torch.tensor([10., 20., 30.])[:, None, None]
    std = torch.tensor([2., 4., 8.])[:, None, None]
    images = (raw[:, [2, 1, 0]].float() - mean) / std
    expected = loss_by_parts(model, images, masks)

    optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=.01))
    log_vars = model.train_step(batch, optim_wrapper)
    torch.testing.assert_close(log_vars['loss'], expected)
    assert loss_by_parts(model, images, masks) < expected


@pytest.mark.parametrize('norm_pix', [True, False])
@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_reconstruct(norm_pix, scope):
    model = micro_model(
        head=dict(type='greenmim.GreenMIMHead', norm_pix=norm_pix),
        mask_scope=scope)
    images = 1 + 2 * torch.randn(2, 3, 64, 96)
    mask = random_mask(1 if scope == 'batch' else 2, (2, 3), 0.5)
    result = model.reconstruct(images, mask)

    pred = model.neck(model.backbone(images, mask), mask).detach()
    for b in range(2):
        for unit in range(6):
            y, x = 32 * (unit // 3), 32 * (unit % 3)
            patch = result['known'][b, :, y:y + 32, x:x + 32]
            expected = pred[b, unit].view(32, 32, 3).permute(2, 0, 1)
            if norm_pix:
                std = (patch.var() + 1e-6).sqrt()
                expected = expected * std + patch.mean()
            actual = result['pred'][b, :, y:y + 32, x:x + 32]
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
            hidden = mask[b if scope == 'image' else 0, unit // 3, unit % 3]
            assert (result['mask'][b, 0, y:y + 32, x:x + 32] == hidden).all()
    assert result['mask'].shape == (2, 1, 64, 96)
    assert result['mask'].dtype == torch.bool
    assert torch.equal(result['target'], images)
    assert result['pred_uses_neighbour_statistics'] is norm_pix
    assert not result['pred'].requires_grad


def test_reconstruct_draws_a_mask(layouts):
    model = micro_model(mask_scope='image')
    result = model.reconstruct([torch.randn(2, 3, 64, 64)])
    assert layouts[0].num_masks == 2
    visible = ~result['mask'][:, 0, ::32, ::32]
    assert torch.equal(visible, layouts[0].visible)


@pytest.mark.parametrize('mode', ['loss', 'reconstruct'])
@pytest.mark.parametrize('size, advice', [((64, 72), (64, 64)),
                                          ((60, 128), (64, 128)),
                                          ((16, 64), (32, 64))])
def test_refuses_sizes_that_are_no_multiple_of_the_unit(mode, size, advice):
    model, images = micro_model(), torch.randn(2, 3, *size)
    with pytest.raises(ValueError) as error:
        if mode == 'loss':
            model(images, None, mode='loss')
        else:
            model.reconstruct(images)
    assert str(size) in str(error.value) and str(advice) in str(error.value)


@pytest.mark.parametrize('overrides, message', [
    (dict(mask_ratio=1), '0 <= mask_ratio < 1, got 1'),
    (dict(mask_ratio=-0.1), '0 <= mask_ratio < 1, got -0.1'),
    (dict(mask_ratio=float('nan')), '0 <= mask_ratio < 1, got nan'),
    (dict(mask_ratio='0.75'), "0 <= mask_ratio < 1, got '0.75'"),
    (dict(mask_ratio=None), '0 <= mask_ratio < 1, got None'),
    (dict(mask_scope='epoch'), "'batch' or 'image', got 'epoch'"),
    (dict(backbone=dict(type='mmpretrain.ResNet', depth=18)),
     'visible units alone.*got ResNet.*MaskTokenMIM'),
])
def test_refuses_bad_settings(overrides, message):
    with pytest.raises(ValueError, match=message):
        micro_model(**overrides)


@pytest.mark.parametrize('overrides, message', [
    (dict(head=dict(type='greenmim.GreenMIMHead', unit_size=16)),
     r'\(4, 4\), got one of \(2, 2\).*unit_size'),
    (dict(neck=dict(type='greenmim.GreenMIMNeck', in_channels=32)),
     r'got \(2, 1, 64\).*in_channels of the neck'),
    (dict(
        neck=dict(
            type='greenmim.GreenMIMNeck', in_channels=64, class_token=True)),
     'expected a class token, got none'),
])
def test_refuses_parts_that_do_not_fit(overrides, message):
    model = micro_model(**overrides)
    with pytest.raises(ValueError, match=message):
        model(torch.randn(2, 3, 64, 64), None, mode='loss')


def test_autocast_matches_fp32():
    model = micro_model(mask_scope='image')
    images, masks = torch.randn(2, 3, 128, 64), random_mask(2, (4, 2), 0.5)
    expected = model(images, samples_with(masks), mode='loss')['loss']
    with torch.autocast('cpu', torch.bfloat16):
        actual = model(images, samples_with(masks), mode='loss')['loss']
    assert actual.dtype == torch.float32
    assert actual.item() == pytest.approx(expected.item(), rel=0.02)
    assert actual.item() != expected.item()
    actual.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
