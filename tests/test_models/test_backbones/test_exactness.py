# Copyright (c) greenmim authors. All rights reserved.
"""Visible-only backbones against slow dense twins that mask.

Every test runs for every line of ``FAMILIES`` (tests/backbones). Parameters
are randomised first, because fresh ones (zero bias tables, unit norms) hide
mistakes.
"""
import copy
import math
import pickle
from functools import partial
from typing import Callable, Iterable, List, Optional, Tuple

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from greenmim.models import GreenMIM
from greenmim.ops.mask_unit import VisibleLayout
from tests.backbones import FAMILIES
from tests.backbones.checks import (build, draw_images, draw_mask, errors,
                                    grid_of, output_and_grads, randomise)
from tests.backbones.family import Family


def all_cases(cases: Callable[[Family], Iterable]) -> list:
    """Parameters (family, case) of all families."""
    return [
        pytest.param(
            family,
            case,
            id=f'{family}-{case if isinstance(case, str) else i}')
        for family in FAMILIES for i, case in enumerate(cases(family))
    ]


each_case = pytest.mark.parametrize('family, case',
                                    all_cases(lambda family: family.cases))


def pixels_of(model: nn.Module, mask: Tensor) -> Tensor:
    """A mask of units in pixels, (M, H, W)."""
    unit = model.unit_size
    return mask.repeat_interleave(unit, 1).repeat_interleave(unit, 2)


@pytest.fixture(params=FAMILIES, ids=str)
def family(request) -> Family:
    return request.param


@pytest.mark.parametrize('mask_kind',
                         ['none', 'one', 'all-but-one', 'shared', 'image'])
@each_case
def test_equals_twin_in_float64(family, case, mask_kind):
    size, kwargs = family.cases[case]
    model = build(family, **kwargs)
    images = draw_images(model, size)
    mask = draw_mask(mask_kind, len(images), grid_of(model, size))

    actual = output_and_grads(lambda x: model(x, mask), model, images)
    expected = output_and_grads(lambda x: family.twin(model)(x, mask), model,
                                images)

    out_error, grad_error = errors(actual, expected)
    assert out_error <= 1e-10
    assert grad_error <= 1e-10


def test_every_stage_equals_the_twin(family):
    size, kwargs = family.cases[family.default]
    model = build(family, **kwargs)
    images = draw_images(model, size)
    mask = draw_mask('image', len(images), grid_of(model, size))
    with torch.no_grad():
        actual = model.forward_stages(images, mask)
        expected = family.twin(model).stages(images, mask)
    assert len(actual) == len(expected)
    for stage, stage_of_twin in zip(actual, expected):
        assert stage.shape == stage_of_twin.shape
        assert (stage - stage_of_twin).abs().max() <= 1e-10


@each_case
def test_equals_twin_in_float32(family, case):
    """Float32 against the float64 twin.

    The bound is 1e-5, or four times what float32 costs the dense model with
    the same masked keys, whichever is larger.
    """
    size, kwargs = family.cases[case]
    exact = build(family, **kwargs)
    model = build(family, torch.float32, **kwargs)
    images = draw_images(exact, size)
    mask = draw_mask('image', len(images), grid_of(model, size))

    expected = output_and_grads(lambda x: family.twin(exact)(x, mask), exact,
                                images)
    dense = output_and_grads(lambda x: family.twin(model)(x, mask), model,
                             images.float())
    actual = output_and_grads(lambda x: model(x, mask), model, images.float())

    dense_errors = errors(dense, expected)
    assert max(dense_errors) <= family.float32_noise
    for error, dense_error in zip(errors(actual, expected), dense_errors):
        assert error <= max(1e-5, 4 * dense_error)


@pytest.mark.parametrize('family, case',
                         all_cases(lambda family: family.options))
def test_options_of_execution_equal_the_twin(family, case, monkeypatch):
    """Tracing is tested here; generated code is the compiler's business."""
    monkeypatch.setattr(torch, 'compile',
                        partial(torch.compile, backend='eager'))
    name, options = case
    size, kwargs = family.cases[name]
    model = build(family, **kwargs, **options)
    model.train()
    images = draw_images(model, size)
    for mask_kind in ('shared', 'image'):
        mask = draw_mask(mask_kind, len(images), grid_of(model, size))
        actual = output_and_grads(lambda x: model(x, mask), model, images)
        expected = output_and_grads(lambda x: family.twin(model)(x, mask),
                                    model, images)
        assert max(errors(actual, expected)) <= 1e-10


@pytest.mark.parametrize(
    'family, mutation',
    [
        pytest.param(family, mutation, id=f'{family}-{mutation.__name__}')
        for family in FAMILIES for mutation in family.mutations
    ],
)
def test_the_comparison_sees_a_mutation(family, mutation):
    """Each mistake moves the output by far more than the tolerance."""
    size, kwargs = family.cases[family.default]
    model = build(family, **kwargs)
    images = draw_images(model, size)
    mask = draw_mask('image', len(images), grid_of(model, size))
    with torch.no_grad():
        actual = model(images, mask)
        error = (actual - mutation(model)(images, mask)).abs().max()
    assert error > 1e-2


def dense_maps_of(model: nn.Module, images: Tensor,
                  grid: Tuple[int, int]) -> List[Tensor]:
    """Outputs of ``model(images)`` cut into units, (B, L, u*u, C) each."""
    outs = []
    grid_h, grid_w = grid
    for x in model(images):
        batch, channels, height, width = x.shape
        unit = height // grid_h
        x = x.view(batch, channels, grid_h, unit, grid_w, unit)
        x = x.permute(0, 2, 4, 3, 5, 1)
        outs.append(x.reshape(batch, grid_h * grid_w, unit * unit, channels))
    return outs


@pytest.mark.parametrize('dtype, limit', [(torch.float64, 1e-10),
                                          (torch.float32, 1e-5)])
@pytest.mark.parametrize('family, case',
                         all_cases(lambda family: family.divided))
def test_nothing_masked_equals_the_parent(family, case, dtype, limit):
    size, kwargs = case
    model = build(family, dtype, **family.all_outputs, **kwargs)
    parent = family.parent(**{
        **family.micro,
        **family.all_outputs,
        **kwargs
    }).to(dtype)
    family.load_parent(parent, model)
    parent.eval()
    images = draw_images(model, size).to(dtype)
    mask = torch.zeros(1, *grid_of(model, size), dtype=torch.bool)
    with torch.no_grad():
        stages = model.forward_stages(images, mask)
        expected = dense_maps_of(parent, images, grid_of(model, size))
        latent = model(images, mask)
    if family.single_output:
        stages = stages[-1:]
    assert len(stages) == len(expected)
    for stage, target in zip(stages, expected):
        assert stage.shape == target.shape
        assert (stage - target).abs().max() <= limit
    assert torch.equal(latent, stages[-1].flatten(1, 2))


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('family, case',
                         all_cases(lambda family: family.dense))
def test_without_mask_equals_the_parent_bit_for_bit(family, case, train):
    size, kwargs = case
    kwargs = {**family.micro, **family.all_outputs, **kwargs}
    model = randomise(family.green(**kwargs))
    parent = family.parent(**kwargs)
    family.load_parent(parent, model)
    images = draw_images(model, size).float()
    results = []
    for net in (model, parent):
        net.train(train)
        torch.manual_seed(0)
        outs = net(images)
        assert isinstance(outs, tuple)
        sum(out.square().sum() for out in outs).backward()
        results.append(list(outs) + [param.grad for param in net.parameters()])
    assert len(results[0]) == len(results[1])
    for actual, expected in zip(*results):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize('mask_kind', ['shared', 'image'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_masked_pixels_have_no_influence(family, mask_kind, dtype):
    """Not one bit of latent or gradient changes, even when they are NaN."""
    size, kwargs = family.cases[family.default]
    model = build(family, dtype, **kwargs)
    images = draw_images(model, size).to(dtype)
    mask = draw_mask(mask_kind, len(images), grid_of(model, size))
    pixels = pixels_of(model, mask)
    pixels = pixels[:, None].expand_as(images)
    assert pixels.any() and not pixels.all()
    expected, grads = output_and_grads(lambda x: model(x, mask), model, images)
    assert grads['images'][pixels].eq(0).all()
    assert grads['images'][~pixels].ne(0).any()
    other = torch.randn(images.shape, dtype=dtype) * 100
    for filling in (other, torch.full_like(images, math.nan),
                    torch.full_like(images, math.inf)):
        changed = torch.where(pixels, filling, images)
        actual, actual_grads = output_and_grads(lambda x: model(x, mask),
                                                model, changed)
        assert torch.equal(actual, expected)
        for name, grad in grads.items():
            assert torch.equal(actual_grads[name], grad), name


def test_visible_pixels_do_have_influence(family):
    """Every visible pixel of every channel reaches the latent."""
    size, kwargs = family.cases[family.default]
    model = build(family, **kwargs)
    images = draw_images(model, size)
    mask = draw_mask('image', len(images), grid_of(model, size))
    _, grads = output_and_grads(lambda x: model(x, mask), model, images)
    pixels = pixels_of(model, mask)
    assert grads['images'].ne(0).all(1)[~pixels].all()


@each_case
def test_each_image_equals_itself_alone(family, case):
    size, kwargs = family.cases[case]
    model = build(family, torch.float32, **kwargs)
    images = draw_images(model, size, batch=5).float()
    mask = draw_mask('image', len(images), grid_of(model, size))
    with torch.no_grad():
        together = model(images, mask)
        for i in range(len(images)):
            alone = model(images[i:i + 1], mask[i:i + 1])
            assert (together[i] - alone[0]).abs().max() <= 1e-5


def test_a_shared_mask_equals_the_same_mask_for_each_image(family):
    size, kwargs = family.cases[family.default]
    model = build(family, **kwargs)
    images = draw_images(model, size, batch=3)
    mask = draw_mask('shared', len(images), grid_of(model, size))
    shared = output_and_grads(lambda x: model(x, mask), model, images)
    repeated = output_and_grads(lambda x: model(x, mask.expand(3, -1, -1)),
                                model, images)
    assert max(errors(repeated, shared)) <= 1e-12


def test_no_call_leaves_a_trace(family):
    """Other masks, sizes, batches, errors and modes change no later bit."""
    size, kwargs = family.divided[0]
    model = build(family, torch.float32, **kwargs)
    images = draw_images(model, size).float()
    mask = draw_mask('image', len(images), grid_of(model, size))
    with torch.inference_mode():
        model(images, mask)
    first, first_grads = output_and_grads(lambda x: model(x, mask), model,
                                          images)
    before = copy.deepcopy(model.state_dict())
    model(images, ~draw_mask('shared', 2, grid_of(model, size)))
    model(images.transpose(2, 3), mask.transpose(1, 2))
    model(images[:1], mask[:1])
    model(images)
    with pytest.raises(ValueError):
        model(images, mask.transpose(1, 2))
    with torch.inference_mode():
        model(images, mask)
    copied = copy.deepcopy(model)
    for net in (model, copied):
        again, grads = output_and_grads(lambda x: net(x, mask), net, images)
        assert torch.equal(again, first)
        assert all(torch.equal(grads[name], first_grads[name])
                   for name in first_grads)  # yapf: disable
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_modes_and_copies(family):
    """Both modes return the model; a copy keeps the planner that was made."""
    size, kwargs = family.divided[0]
    model = build(family, torch.float32, **kwargs)
    assert model.train() is model and model.training
    assert model.eval() is model and not model.training
    images = draw_images(model, size).float()
    mask = draw_mask('image', len(images), grid_of(model, size))
    with torch.no_grad():
        latent, maps = model(images, mask), model(images)
        again = pickle.loads(pickle.dumps(model))
        again.make_planner = None
        assert torch.equal(again(images, mask), latent)
        assert all(map(torch.equal, again(images), maps))


def test_all_forms_of_a_mask_agree(family):
    """Bool, layout, finer mask and numbers give the same bits."""
    size, kwargs = family.divided[0]
    model = build(family, torch.float32, **kwargs)
    images = draw_images(model, size).float()
    mask = draw_mask('image', len(images), grid_of(model, size))
    finer = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    with torch.no_grad():
        expected = model(images, mask)
        for form in (VisibleLayout.from_mask(mask), finer, mask.long(),
                     mask.float()):
            assert torch.equal(model(images, form), expected)
        assert torch.equal(model(images, mask=mask), expected)


@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_checkpointing_changes_no_gradient(family, frozen_stages):
    size, kwargs = family.cases[family.default]
    results = []
    for with_cp in (False, True):
        model = build(
            family, with_cp=with_cp, frozen_stages=frozen_stages, **kwargs)
        model.train()
        images = draw_images(model, size)
        mask = draw_mask('image', len(images), grid_of(model, size))
        results.append(
            output_and_grads(lambda x: model(x, mask), model, images))
    assert max(errors(*results)) <= 1e-12


@pytest.mark.parametrize('frozen_stages', [0, 1, 3])
def test_frozen_stages_get_no_gradient(family, frozen_stages):
    size, kwargs = family.cases[family.default]
    model = build(
        family, frozen_stages=frozen_stages, **family.all_outputs, **kwargs)
    model.train()
    mask = draw_mask('image', 2, grid_of(model, size))
    for name, param in model.named_parameters():
        param.grad = None
    latent = model(draw_images(model, size), mask)
    if all(
            family.is_frozen(name, frozen_stages)
            or name.startswith(family.unused)
            for name, _ in model.named_parameters()):
        assert not latent.requires_grad
        return
    latent.square().sum().backward()
    for name, param in model.named_parameters():
        if family.is_frozen(name, frozen_stages):
            assert param.grad is None, name
        elif not name.startswith(family.unused):
            assert param.grad.ne(0).any(), name


def test_drop_path_acts_on_whole_images(family, monkeypatch):
    """The same images are dropped in all branches, which have one rate."""
    size, kwargs = family.cases[family.default]
    model = build(family, **{**kwargs, 'drop_path_rate': 0.5})
    factors = torch.tensor([0., 2., 2.])

    def rand(shape, **options):
        assert shape[1] == len(factors), 'drop path must act on images'
        numbers = (factors / 3).to(options['dtype'])
        return numbers.view(-1, *[1] * (len(shape) - 2)).expand(shape).clone()

    monkeypatch.setattr(torch, 'rand', rand)
    images = draw_images(model, size, batch=3)
    mask = draw_mask('image', 3, grid_of(model, size))
    expected = family.twin(model, drop_path=factors)(images, mask)
    dropping = [module for module in model.modules()
                if type(module).__name__ == 'DropPath']  # yapf: disable
    for module in dropping:
        module.drop_prob = 0.5
    assert len(dropping) >= len(model.forward_stages(images, mask))
    model.train()
    # Batch norms stay with the running statistics, which the twin has read.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    assert (model(images, mask) - expected).abs().max() <= 1e-10


def test_drop_path_in_training(family):
    size, kwargs = family.cases[family.default]
    model = build(family, **{**kwargs, 'drop_path_rate': 0.5})
    images = draw_images(model, size)
    mask = draw_mask('image', 2, grid_of(model, size))
    evaluated = model(images, mask)
    model.train()
    torch.manual_seed(0)
    trained = model(images, mask)
    assert trained.shape == evaluated.shape
    assert trained.isfinite().all()
    assert not torch.equal(trained, evaluated)
    torch.manual_seed(0)
    assert torch.equal(model(images, mask), trained)
    torch.manual_seed(1)
    assert not torch.equal(model(images, mask), trained)


@pytest.mark.parametrize('mask_kind', ['shared', 'image'])
def test_bfloat16_autocast_is_close_to_float32(family, mask_kind):
    size, kwargs = family.cases[family.default]
    model = build(family, torch.float32, **kwargs)
    mask = draw_mask(mask_kind, 2, grid_of(model, size))

    def squared_errors(forward, images, exact):
        """Of output and gradients, relative to their squares."""
        with torch.autocast('cpu', torch.bfloat16):
            out, grads = output_and_grads(forward, model, images)
        assert out.isfinite().all()
        flat, exact_flat = (
            torch.cat([x[name].flatten() for name in exact[1]])
            for x in (grads, exact[1]))
        return torch.stack([
            ((actual - expected).norm() / expected.norm())**2
            for actual, expected in ((out, exact[0]), (flat, exact_flat))
        ]).detach()

    # bfloat16 has 8 significant bits; the dense twin says what that costs
    # here. Rounding is random, so it is taken over several pairs of images.
    green, dense = torch.zeros(2), torch.zeros(2)
    for images in draw_images(model, size, 12).float().split(2):
        exact = output_and_grads(lambda x: model(x, mask), model, images)
        green += squared_errors(lambda x: model(x, mask), images, exact)
        dense += squared_errors(lambda x: family.twin(model)(x, mask), images,
                                exact)
    green, dense = (green / 6).sqrt(), (dense / 6).sqrt()
    assert green.max() <= 2e-2
    assert (green <= 1.5 * dense).all(), (green, dense)


class _NoBlockingCopy(TorchDispatchMode):
    """Refuse operators that would wait for a copy from CPU to device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs))
                   if isinstance(x, Tensor)]  # yapf: disable
        devices = {x.device.type for x in tensors if x.ndim}
        target = kwargs.get('device')
        if func is torch.ops.aten._to_copy.default and target is not None:
            if devices == {'cpu'} and torch.device(target).type == 'meta':
                assert kwargs.get('non_blocking'), 'a blocking copy'
        else:
            assert devices != {'cpu', 'meta'}, f'{func} copies in the middle'
        return func(*args, **kwargs)


class _NoTensorFromList(TorchFunctionMode):
    """Refuse tensors made from Python numbers on the device, a hidden and
    blocking copy."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            assert out.device.type == 'cpu', f'{func} copies to the device'
        return out


@pytest.mark.parametrize('mask_kind', ['shared', 'image'])
@pytest.mark.parametrize('family, kwargs',
                         all_cases(lambda family: family.waiting))
def test_nothing_waits_for_the_device(family, kwargs, mask_kind):
    """Run on the meta device, where reading a value back is an error.

    Mask and plan are made on the CPU. Whatever asked a device tensor for a
    value (``item``, ``tolist``, ``nonzero``, ``equal``, a boolean index, a
    copy to the CPU) would fail here; blocking copies to the device are
    refused by the two modes.
    """
    size, _ = family.cases[family.default]
    model = build(family, torch.float32, **kwargs).to('meta')
    model.train()
    images = draw_images(model, size).float().to('meta').requires_grad_()
    mask = draw_mask(mask_kind, 2, grid_of(model, size))
    with _NoBlockingCopy(), _NoTensorFromList():
        latent = model(images, mask)
        assert latent.device.type == 'meta'
        latent.sum().backward()
    assert images.grad.device.type == 'meta'


@pytest.mark.parametrize('mask_scope', ['batch', 'image'])
def test_the_whole_model_does_not_wait(family, mask_scope):
    """From images to gradients, mask and loss included."""
    size, kwargs = family.cases[family.default]
    backbone = family.green(**{**family.micro, **kwargs})
    images = draw_images(backbone, size).float()
    latent = backbone(images, draw_mask('shared', 2, grid_of(backbone, size)))
    model = GreenMIM(
        backbone=backbone,
        neck=dict(
            type='greenmim.GreenMIMNeck',
            in_channels=latent.shape[-1],
            embed_dims=16,
            num_heads=2,
            out_channels=backbone.unit_size**2 * backbone.image_channels),
        head=dict(type='greenmim.GreenMIMHead', unit_size=backbone.unit_size),
        mask_scope=mask_scope).to('meta')
    model.train()
    images = images.to('meta')
    with _NoBlockingCopy(), _NoTensorFromList():
        loss = model(images, None, mode='loss')['loss']
        loss.backward()
    assert loss.device.type == 'meta'
    assert all(param.grad is not None for param in model.parameters())


def test_the_check_for_waiting_works():
    x = torch.zeros(3, device='meta')
    index = torch.arange(2)
    for read in (Tensor.item, Tensor.tolist, Tensor.nonzero, Tensor.cpu, bool,
                 lambda y: y[y > 0], lambda y: torch.equal(y, y)):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(x[:1])
    with _NoBlockingCopy(), _NoTensorFromList():
        index.to('meta', non_blocking=True)
        for copy_ in (lambda: index.to('meta'), lambda: x[index],
                      lambda: torch.tensor([1.], device='meta'),
                      lambda: x.new_tensor([1.])):
            with pytest.raises(AssertionError):
                copy_()


def test_bad_masks_and_sizes_are_refused(family):
    size, kwargs = family.cases[family.default]
    model = build(family, torch.float32, **kwargs)
    images = draw_images(model, size).float()
    grid = grid_of(model, size)
    mask = draw_mask('image', 2, grid)

    def refused(match: str, x: Tensor, m: Optional[Tensor]) -> None:
        with pytest.raises(ValueError, match=match):
            model(x, m)

    refused('multiple', images[..., :-1], mask)
    refused('multiple', images[..., :-16, :], mask)
    refused('grid', images, mask.transpose(1, 2))
    refused('shape', images, mask.flatten(1))
    refused('shape', images, mask[0])
    refused('2', images, mask.new_zeros(3, *grid))  # 3 masks, 2 images
    refused('0 or 1', images, torch.rand(1, *grid))
    refused('visible', images, torch.ones(1, *grid, dtype=torch.bool))
    unequal = mask.clone()
    unequal[0] = True
    unequal[0, 0, 0] = False
    refused('same number', images, unequal)
    mixed = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
    mixed[0, 0, 0] ^= True
    refused('partly|mixed', images, mixed)
    refused('channel', images[:, :2], mask)
    with pytest.raises(TypeError):
        model(images, mask.tolist())
