# Copyright (c) greenmim authors. All rights reserved.
"""A step that only follows a plan: nothing is planned and nothing read back.
"""
import pytest
import torch
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from greenmim.models import GreenMIMSwinTransformer
from greenmim.models.masking import random_mask
from greenmim.ops import BACKENDS, StageWindows, VisibleLayout, Window
from tests.micro import micro_config, micro_model

READS = [
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
]


class NoReadingBack(TorchDispatchMode):
    """Refuse operators that wait for what is on a device other than the CPU.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        devices = {
            x.device.type
            for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)
        }
        target = kwargs.get('device')
        if devices - {'cpu'}:
            assert func not in READS, f'{func} waits for the device'
            assert target is None or torch.device(target).type != 'cpu', (
                f'{func} copies from the device')
        return func(*args, **kwargs)


@pytest.mark.filterwarnings('ignore:the fused attention needs a GPU')
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('scope', ['batch', 'image'])
@pytest.mark.parametrize('with_cp', [False, True])
def test_nothing_is_read_back(backend, scope, with_cp, monkeypatch):
    """Loss and backward on the meta device, which has no values to read."""
    backbone = micro_config()['backbone']
    model = micro_model(
        backbone=dict(backbone, attn_backend=backend, with_cp=with_cp),
        mask_scope=scope)
    plan = model.mask_planner(2, (128, 96))
    assert plan.layout.num_masks == (1 if scope == 'batch' else 2)
    monkeypatch.setattr(model, 'mask_planner', None)  # the plan is enough
    monkeypatch.setattr(model.backbone, 'make_planner', None)
    model.to('meta').train()
    images = torch.empty(2, 3, 128, 96, device='meta')
    samples = [DataSample(metainfo=dict(mask_plan=plan)), DataSample()]
    with NoReadingBack():
        loss = model(images, samples, mode='loss')['loss']
        loss.backward()
    assert loss.device.type == 'meta'
    assert all(p.grad.device.type == 'meta' for p in model.parameters())


def test_the_check_for_reading_back_works():
    x = torch.zeros(3, device='meta')
    with NoReadingBack():
        for read in (Tensor.item, Tensor.tolist, Tensor.nonzero, bool,
                     Tensor.cpu, lambda y: y.to('cpu', non_blocking=True),
                     lambda y: y[y > 0], lambda y: torch.equal(y, y)):
            # what escapes the mode fails for want of values
            with pytest.raises((AssertionError, NotImplementedError)):
                read(x[:1])
        assert torch.ones(1).item() == 1  # the CPU's own values are at hand


@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_a_plan_gives_the_loss_of_its_mask(scope):
    torch.manual_seed(0)
    model = micro_model(mask_scope=scope)
    images = torch.randn(3, 3, 96, 64)
    plan = model.mask_planner(3, (96, 64))
    samples = [DataSample() for _ in range(3)]
    samples[0].set_metainfo(dict(mask_plan=plan))
    actual = model(images, samples, mode='loss')['loss']
    masks = ~plan.layout.visible.expand(3, -1, -1)
    expected = model(
        images, [DataSample(metainfo=dict(mask=mask)) for mask in masks],
        mode='loss')['loss']
    assert torch.equal(actual, expected)


def test_the_planner_of_a_backbone():
    model = GreenMIMSwinTransformer(
        arch=dict(embed_dims=8, depths=[1, 2, 3, 2], num_heads=[1, 1, 2, 2]),
        window_size=(14, 7, 7, 7),
        stage_cfgs=[
            dict(block_cfgs=dict(pad_small_map=pad))
            for pad in (False, False, True, False)
        ])
    planner = model.make_planner()
    both = (Window(7, 0, 7), Window(7, 3, 7))
    padded = (Window(7, 0, 7, True), Window(7, 3, 7, True))
    assert planner.stages == (StageWindows(8, (Window(14, 0, 14), )),
                              StageWindows(4, both), StageWindows(2, padded),
                              StageWindows(1, both))
    # the last map is 7x7, one window that cannot be shifted
    layout = VisibleLayout.from_mask(random_mask(1, (7, 7), 0.75))
    plan = planner(layout)
    assert [set(groups) for groups in plan.groups
            ] == [set(stage.windows) for stage in planner.stages]
    assert [len(set(groups.values()))
            for groups in plan.groups] == [1, 2, 2, 1]


def test_plans_of_another_backbone_are_refused():
    arch = dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 1, 2, 2])
    model = GreenMIMSwinTransformer(arch=arch, window_size=7)
    other = GreenMIMSwinTransformer(arch=arch, window_size=4)
    images, mask = torch.randn(1, 3, 128, 128), random_mask(1, (4, 4), 0.5)
    plan = other.make_planner()(VisibleLayout.from_mask(mask))
    with pytest.raises(ValueError, match='make_planner'):
        model(images, plan)
    with pytest.raises(ValueError, match='grid'):
        other(images[..., :96], plan)
    plans = other.make_planner()(
        VisibleLayout.from_mask(mask.expand(3, -1, -1)))
    with pytest.raises(ValueError, match='3'):
        other(images.expand(2, -1, -1, -1), plans)
