# Copyright (c) greenmim authors. All rights reserved.
"""Visible-only backbones against a slow dense twin that masks keys.

Every test runs for every line of ``FAMILIES``. Parameters are randomised
first, because fresh ones (zero bias tables, unit norms) hide mistakes.
"""
import copy
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest
import torch
from mmpretrain.models import SwinTransformer
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from greenmim.models import GreenMIM, GreenMIMSwinTransformer
from greenmim.ops.mask_unit import VisibleLayout
from tests.dense_twin import DenseSwinTwin, window_of_map

UNIT = 32  # pixels


@dataclass(frozen=True)
class Family:
    """A green backbone with its dense parent and its dense twin.

    Attributes:
        name: Shown in test ids.
        green: The class under test.
        parent: The dense class that it extends.
        twin: Maps a model to an object with ``stages(images, mask)``.
        micro: Arguments of a micro model.
    """
    name: str
    green: Callable[..., nn.Module]
    parent: Callable[..., nn.Module]
    twin: Callable[..., Any]
    micro: Dict[str, Any] = field(default_factory=dict)


FAMILIES = [
    Family(
        'swin', GreenMIMSwinTransformer, SwinTransformer, DenseSwinTwin,
        dict(
            arch=dict(
                embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4]),
            drop_path_rate=0.)),
]

# (height, width) in pixels and arguments of the backbone. The maps of a
# stage are height / 4, / 8, / 16 and / 32.
SHAPES: Dict[str, Tuple[Tuple[int, int], Dict[str, Any]]] = {
    # windows divide, the last map equals the window
    'w4-128x128': ((128, 128), dict(window_size=4)),
    'w4-128x128-pad': ((128, 128), dict(window_size=4, pad_small_map=True)),
    'w4-64x96': ((64, 96), dict(window_size=4)),
    # windows neither divide nor fit the later maps
    'w6-192x64': ((192, 64), dict(window_size=6)),
    'w6-64x160-pad': ((64, 160), dict(window_size=6, pad_small_map=True)),
    'w7-96x160': ((96, 160), dict(window_size=7)),
    'w7-160x96-pad': ((160, 96), dict(window_size=7, pad_small_map=True)),
    'w7-32x224': ((32, 224), dict(window_size=7)),
    'w8-160x96': ((160, 96), dict(window_size=8)),
    'w8-96x160-pad': ((96, 160), dict(window_size=8, pad_small_map=True)),
    'w12-96x192': ((96, 192), dict(window_size=12)),
    'w12-128x96-pad': ((128, 96), dict(window_size=12, pad_small_map=True)),
    'w14-160x128': ((160, 128), dict(window_size=14)),
    'w14-128x160-pad': ((128, 160), dict(window_size=14, pad_small_map=True)),
    # one unit, whose every map is smaller than the window
    'w14-32x32': ((32, 32), dict(window_size=14)),
    'w14-32x32-pad': ((32, 32), dict(window_size=14, pad_small_map=True)),
    # an odd window per stage, other channels, absolute positions
    'w5-3-7-2':
    ((128, 96),
     dict(
         in_channels=1,
         stage_cfgs=[
             dict(block_cfgs=dict(window_size=w)) for w in (5, 3, 7, 2)
         ])),
    'w7-abs-pos': ((96, 128),
                   dict(
                       window_size=7,
                       in_channels=5,
                       img_size=(96, 128),
                       use_abs_pos_embed=True)),
    # absolute positions of another image size are interpolated
    'w4-abs-pos-resized': ((64, 128),
                           dict(
                               window_size=4,
                               img_size=128,
                               use_abs_pos_embed=True,
                               interpolate_mode='bilinear')),
    'no-qkv-bias':
    ((96, 96),
     dict(
         window_size=6,
         stage_cfgs=dict(
             block_cfgs=dict(attn_cfgs=dict(qkv_bias=False, qk_scale=0.7))))),
}


def draw_mask(kind: str, batch: int, grid: Tuple[int, int]) -> Tensor:
    """Bool (1 or B, Gh, Gw) with True = masked.

    Args:
        kind: ``none``, ``one`` (a single unit visible, another one in each
            image), ``all-but-one``, ``shared`` (a quarter of the units
            visible, the same in every image), ``image`` (half of the units,
            others in each image).
    """
    units = grid[0] * grid[1]
    kept = {
        'none': units,
        'one': 1,
        'all-but-one': max(1, units - 1),
        'shared': max(1, units // 4),
        'image': max(1, units // 2)
    }[kind]
    num = 1 if kind in ('none', 'shared') else batch
    generator = torch.Generator().manual_seed(units + kept)
    mask = torch.ones(num, units, dtype=torch.bool)
    for row in mask:
        row[torch.randperm(units, generator=generator)[:kept]] = False
    if kind == 'one':  # really another unit in every image
        mask = mask[:1]
        mask = torch.cat([mask.roll(i, 1) for i in range(batch)])
    return mask.view(num, *grid)


def grid_of(size: Tuple[int, int]) -> Tuple[int, int]:
    return size[0] // UNIT, size[1] // UNIT


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a random value of sizeable scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, param in model.named_parameters():
            noise = torch.randn(
                param.shape, generator=generator, dtype=torch.float64)
            if 'table' in name or 'pos_embed' in name:
                param.copy_(noise)
            elif param.ndim == 1:
                scale_of_norm = 'norm' in name and name.endswith('weight')
                param.copy_(0.5 * noise + float(scale_of_norm))
            else:
                param.copy_(noise * 0.8 / math.sqrt(param[0].numel()))
    return model


def build(family: Family, dtype=torch.float64, **kwargs) -> nn.Module:
    model = randomise(family.green(**{**family.micro, **kwargs}))
    model = model.to(dtype)
    model.eval()
    return model


def draw_images(model: nn.Module, size: Tuple[int, int], batch: int = 2):
    channels = model.patch_embed.projection.in_channels
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(
        batch, channels, *size, generator=generator, dtype=torch.float64)


def output_and_grads(forward, model: nn.Module,
                     images: Tensor) -> Tuple[Tensor, Dict[str, Tensor]]:
    """Output, and gradients of a random linear loss.

    The gradient of the images is among them, under the name ``images``.
    """
    images = images.detach().clone().requires_grad_()
    model.zero_grad(set_to_none=True)
    out = forward(images)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(
        out.shape, generator=generator, dtype=torch.float64).to(out)
    (out * weight).sum().backward()
    grads = {
        name: param.grad
        for name, param in model.named_parameters() if param.grad is not None
    }
    grads['images'] = images.grad
    return out.detach(), grads


def errors(actual, expected) -> Tuple[float, float]:
    """Largest error of the output, and of the gradients (per tensor,
    relative to the tensor's largest entry)."""
    out, grads = actual
    expected_out, expected_grads = expected
    assert out.shape == expected_out.shape
    assert grads.keys() == expected_grads.keys()
    assert out.isfinite().all()
    worst = 0.
    largest = max(float(g.abs().max()) for g in expected_grads.values())
    for name, grad in grads.items():
        assert grad.isfinite().all(), name
        target = expected_grads[name].double()
        scale = float(target.abs().max())
        # A gradient that is zero in exact arithmetic (a bias table of
        # windows that hold one token) has no scale of its own.
        scale = scale if scale > 1e-12 * largest else largest
        worst = max(worst, float((grad.double() - target).abs().max()) / scale)
    return float((out.double() - expected_out.double()).abs().max()), worst


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request) -> Family:
    return request.param


@pytest.mark.parametrize('mask_kind',
                         ['none', 'one', 'all-but-one', 'shared', 'image'])
@pytest.mark.parametrize('shape', SHAPES)
def test_equals_twin_in_float64(family, shape, mask_kind):
    size, kwargs = SHAPES[shape]
    model = build(family, **kwargs)
    images = draw_images(model, size)
    mask = draw_mask(mask_kind, len(images), grid_of(size))

    actual = output_and_grads(lambda x: model(x, mask), model, images)
    expected = output_and_grads(lambda x: family.twin(model)(x, mask), model,
                                images)

    out_error, grad_error = errors(actual, expected)
    assert out_error <= 1e-10
    assert grad_error <= 1e-10


def test_equals_twin_at_the_papers_size(family):
    """Swin at 224 px with window 7 and 12 of 49 units, one mask an image."""
    model = build(family, window_size=7)
    images = draw_images(model, (224, 224))
    mask = torch.ones(2, 49, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for row in mask:
        row[torch.randperm(49, generator=generator)[:12]] = False
    mask = mask.view(2, 7, 7)
    with torch.no_grad():
        actual = model.forward_stages(images, mask)
        expected = family.twin(model).stages(images, mask)
    assert len(actual) == len(expected)
    for stage, stage_of_twin in zip(actual, expected):
        assert stage.shape == stage_of_twin.shape
    assert (actual[-1] - expected[-1]).abs().max() <= 1e-10


@pytest.mark.parametrize('shape', SHAPES)
def test_equals_twin_in_float32(family, shape):
    """Float32 against the float64 twin.

    The bound is 1e-5, or four times what float32 costs the dense model with
    the same masked keys, whichever is larger.
    """
    size, kwargs = SHAPES[shape]
    exact = build(family, **kwargs)
    model = build(family, torch.float32, **kwargs)
    images = draw_images(exact, size)
    mask = draw_mask('image', len(images), grid_of(size))

    expected = output_and_grads(lambda x: family.twin(exact)(x, mask), exact,
                                images)
    dense = output_and_grads(lambda x: family.twin(model)(x, mask), model,
                             images.float())
    actual = output_and_grads(lambda x: model(x, mask), model, images.float())

    dense_errors = errors(dense, expected)
    assert max(dense_errors) <= 1e-4  # float32 noise is small to begin with
    for error, dense_error in zip(errors(actual, expected), dense_errors):
        assert error <= max(1e-5, 4 * dense_error)


def _mask_of_windows(visible: Tensor,
                     hw_shape,
                     window_size: int,
                     shift_size: int,
                     device=None) -> Tensor:
    """The parent's attention mask, with masked and padding keys blocked."""
    (height, width), shift = visible.shape, (-shift_size, -shift_size)
    usable = torch.zeros(1, *hw_shape, 1)
    usable[0, :height, :width, 0] = visible
    keys = ShiftWindowMSA.window_partition(
        usable.roll(shift, (1, 2)), window_size).view(-1, 1, window_size**2)
    blocked = keys == 0
    if shift_size:
        blocked = blocked | ShiftWindowMSA.get_attn_mask(
            hw_shape, window_size, shift_size).ne(0)
    # a token always sees itself, so that no row is empty
    blocked = blocked & ~torch.eye(window_size**2, dtype=torch.bool)
    return torch.zeros(blocked.shape).masked_fill(blocked, -math.inf)


@pytest.mark.parametrize('shape', [
    'w4-128x128', 'w4-128x128-pad', 'w6-64x160-pad', 'w7-160x96-pad',
    'w12-128x96-pad', 'w14-32x32-pad'
])
def test_the_twin_is_the_parent_with_masked_keys(shape):
    """The twin's formula of windows is the parent's padding and roll."""
    size, kwargs = SHAPES[shape]
    family = FAMILIES[0]
    parent = randomise(family.parent(**{**family.micro, **kwargs})).double()
    parent.eval()
    images = draw_images(parent, size)
    mask = draw_mask('shared', 2, grid_of(size))
    expected = DenseSwinTwin(parent)(images, mask)
    for i, stage in enumerate(parent.stages):
        side = 8 // 2**i
        visible = ~mask[0].repeat_interleave(side, 0).repeat_interleave(
            side, 1)
        for block in stage.blocks:
            block.attn.get_attn_mask = partial(_mask_of_windows, visible)
    dense, = parent(images)
    actual = dense.permute(0, 2, 3, 1)[:, ~mask[0]]
    assert (actual - expected).abs().max() <= 1e-10


@pytest.mark.parametrize(
    'shape, options', [
        ('w7-96x160', dict(attn_backend='sdpa')),
        ('w6-64x160-pad', dict(attn_backend='sdpa')),
        ('w14-32x32', dict(attn_backend='sdpa')),
        ('w6-64x160-pad', dict(attn_backend='sdpa', with_cp=True)),
        ('w6-64x160-pad', dict(compile_blocks=True)),
    ],
    ids=['sdpa', 'sdpa-pad', 'sdpa-one-unit', 'checkpointing', 'compiled'])
def test_options_of_execution_equal_the_twin(family, shape, options,
                                             monkeypatch):
    """Tracing is tested here; generated code is the compiler's business."""
    monkeypatch.setattr(torch, 'compile',
                        partial(torch.compile, backend='eager'))
    size, kwargs = SHAPES[shape]
    model = build(family, **kwargs, **options)
    model.train()
    images = draw_images(model, size)
    for mask_kind in ('shared', 'image'):
        mask = draw_mask(mask_kind, len(images), grid_of(size))
        actual = output_and_grads(lambda x: model(x, mask), model, images)
        expected = output_and_grads(lambda x: family.twin(model)(x, mask),
                                    model, images)
        assert max(errors(actual, expected)) <= 1e-10


class _NoShift(DenseSwinTwin):

    def _attention(self, x, attn, masked):
        attn = copy.copy(attn)
        attn.shift_size = 0
        return super()._attention(x, attn, masked)


class _ShiftOffByOne(DenseSwinTwin):

    def _attention(self, x, attn, masked):
        attn = copy.copy(attn)
        if attn.shift_size:
            attn.shift_size += 1
        return super()._attention(x, attn, masked)


class _MaskedKeysSeen(DenseSwinTwin):

    def _attention(self, x, attn, masked):
        return super()._attention(x, attn, torch.zeros_like(masked))


class _ZeroBiasTable(DenseSwinTwin):

    def _attention(self, x, attn, masked):
        attn = copy.deepcopy(attn)
        nn.init.zeros_(attn.w_msa.relative_position_bias_table)
        return super()._attention(x, attn, masked)


class _TransposedBias(DenseSwinTwin):
    """Rows and columns swapped in the relative position."""

    def _attention(self, x, attn, masked):
        attn = copy.deepcopy(attn)
        table = attn.w_msa.relative_position_bias_table
        side = 2 * attn.w_msa.window_size[0] - 1
        table.data = table.data.view(side, side,
                                     -1).transpose(0,
                                                   1).reshape(side * side, -1)
        return super()._attention(x, attn, masked)


class _ShrunkTable(DenseSwinTwin):
    """Coordinates of a shrunk window looked up in a table of that width."""

    def _attention(self, x, attn, masked):
        attn = copy.copy(attn)
        window, _ = window_of_map(*x.shape[1:3], attn.window_size,
                                  attn.shift_size, attn.pad_small_map)
        attn.w_msa = copy.copy(attn.w_msa)
        attn.w_msa.window_size = (window, window)
        return super()._attention(x, attn, masked)


class _MicrosoftMergeOrder(DenseSwinTwin):
    """(0,0), (1,0), (0,1), (1,1), each neighbour's channels together."""

    def _merge(self, x, merge):
        x = torch.cat([
            x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2,
                                                                    1::2]
        ],
                      dim=-1)
        x = self._norm(x, merge.norm)
        return nn.functional.linear(x, merge.reduction.weight)


class _SwappedTokens(DenseSwinTwin):
    """Rows and columns swapped inside each 2x2 square that is merged."""

    def _merge(self, x, merge):
        x = x.clone()
        x[:, 0::2, 1::2], x[:, 1::2, 0::2] = (x[:, 1::2,
                                                0::2].clone(), x[:, 0::2,
                                                                 1::2].clone())
        return super()._merge(x, merge)


class _FlattenedByHeight(DenseSwinTwin):
    """A map of y * W + x read as if it were y * H + x."""

    def _merge(self, x, merge):
        height, width = x.shape[1:3]
        y = torch.arange(height)[:, None]
        index = (y * height + torch.arange(width)) % (height * width)
        x = x.flatten(1, 2)[:, index.flatten()].view(x.shape)
        return super()._merge(x, merge)


MUTATIONS = [
    _NoShift, _ShiftOffByOne, _MaskedKeysSeen, _ZeroBiasTable, _TransposedBias,
    _ShrunkTable, _MicrosoftMergeOrder, _SwappedTokens, _FlattenedByHeight
]


@pytest.mark.parametrize(
    'mutation', MUTATIONS, ids=lambda cls: cls.__name__.strip('_'))
def test_the_comparison_sees_a_mutation(mutation):
    """Each mistake moves the output by far more than the tolerance."""
    size, kwargs = SHAPES['w7-96x160']
    model = build(FAMILIES[0], **kwargs)
    images = draw_images(model, size)
    mask = draw_mask('image', len(images), grid_of(size))
    with torch.no_grad():
        actual = model(images, mask)
        error = (actual - mutation(model)(images, mask)).abs().max()
    assert error > 1e-2


def dense_maps_of(model: nn.Module, images: Tensor) -> List[Tensor]:
    """Outputs of ``model(images)`` cut into units, (B, L, u*u, C) each."""
    outs = []
    grid_h, grid_w = grid_of(images.shape[-2:])
    for x in model(images):
        batch, channels, height, width = x.shape
        unit = height // grid_h
        x = x.view(batch, channels, grid_h, unit, grid_w, unit)
        x = x.permute(0, 2, 4, 3, 5, 1)
        outs.append(x.reshape(batch, grid_h * grid_w, unit * unit, channels))
    return outs


@pytest.mark.parametrize('dtype, limit', [(torch.float64, 1e-10),
                                          (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    'size, kwargs',
    [((128, 128), dict(window_size=4)),
     ((128, 256), dict(window_size=4, pad_small_map=True)),
     ((256, 128), dict(window_size=4)),
     ((192, 192),
      dict(stage_cfgs=[
          dict(block_cfgs=dict(window_size=w)) for w in (12, 8, 6, 3)
      ])), ((224, 224), dict(window_size=7))],
    ids=['w4', 'w4-wide-pad', 'w4-high', 'w12-8-6-3', 'w7'])
def test_nothing_masked_equals_the_parent(family, size, kwargs, dtype, limit):
    model = build(family, dtype, out_indices=(0, 1, 2, 3), **kwargs)
    parent = family.parent(**{
        **family.micro,
        **kwargs, 'out_indices': (0, 1, 2, 3)
    }).to(dtype)
    parent.load_state_dict(model.state_dict(), strict=True)
    parent.eval()
    images = draw_images(model, size).to(dtype)
    mask = torch.zeros(1, *grid_of(size), dtype=torch.bool)
    with torch.no_grad():
        stages = model.forward_stages(images, mask)
        expected = dense_maps_of(parent, images)
        latent = model(images, mask)
    assert len(stages) == len(expected) == 4
    for stage, target in zip(stages, expected):
        assert stage.shape == target.shape
        assert (stage - target).abs().max() <= limit
    assert torch.equal(latent, stages[-1].flatten(1, 2))


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    'size, kwargs',
    [((128, 128), dict(window_size=4)),
     ((64, 96), dict(window_size=7, pad_small_map=True)),
     ((224, 224), dict(window_size=7, drop_path_rate=0.5, drop_rate=0.1)),
     ((150, 131), dict(window_size=4, use_abs_pos_embed=True, in_channels=1)),
     ((128, 128), dict(window_size=4, out_after_downsample=True, with_cp=True))
     ],
    ids=['w4', 'pad', 'drop', 'any-size', 'after-downsample'])
def test_without_mask_equals_the_parent_bit_for_bit(family, size, kwargs,
                                                    train):
    kwargs = {**family.micro, 'out_indices': (0, 1, 2, 3), **kwargs}
    model = randomise(family.green(**kwargs))
    parent = family.parent(**kwargs)
    parent.load_state_dict(model.state_dict(), strict=True)
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
    size, kwargs = SHAPES['w7-96x160']
    model = build(family, dtype, **kwargs)
    images = draw_images(model, size).to(dtype)
    mask = draw_mask(mask_kind, len(images), grid_of(size))
    pixels = mask.repeat_interleave(UNIT, 1).repeat_interleave(UNIT, 2)
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
    size, kwargs = SHAPES['w7-96x160']
    model = build(family, **kwargs)
    images = draw_images(model, size)
    mask = draw_mask('image', len(images), grid_of(size))
    _, grads = output_and_grads(lambda x: model(x, mask), model, images)
    pixels = mask.repeat_interleave(UNIT, 1).repeat_interleave(UNIT, 2)
    assert grads['images'].ne(0).all(1)[~pixels].all()


@pytest.mark.parametrize('shape', ['w7-96x160', 'w4-128x128-pad', 'w7-32x224'])
def test_each_image_equals_itself_alone(family, shape):
    size, kwargs = SHAPES[shape]
    model = build(family, torch.float32, **kwargs)
    images = draw_images(model, size, batch=5).float()
    mask = draw_mask('image', len(images), grid_of(size))
    with torch.no_grad():
        together = model(images, mask)
        for i in range(len(images)):
            alone = model(images[i:i + 1], mask[i:i + 1])
            assert (together[i] - alone[0]).abs().max() <= 1e-5


def test_a_shared_mask_equals_the_same_mask_for_each_image(family):
    size, kwargs = SHAPES['w7-96x160']
    model = build(family, **kwargs)
    images = draw_images(model, size, batch=3)
    mask = draw_mask('shared', len(images), grid_of(size))
    shared = output_and_grads(lambda x: model(x, mask), model, images)
    repeated = output_and_grads(lambda x: model(x, mask.expand(3, -1, -1)),
                                model, images)
    assert max(errors(repeated, shared)) <= 1e-12


def test_no_call_leaves_a_trace(family):
    """Other masks, sizes, batches, errors and modes change no later bit."""
    size, kwargs = SHAPES['w6-64x160-pad']
    model = build(
        family, torch.float32, use_abs_pos_embed=True, img_size=64, **kwargs)
    images = draw_images(model, size).float()
    mask = draw_mask('image', len(images), grid_of(size))
    with torch.inference_mode():
        model(images, mask)
    first, first_grads = output_and_grads(lambda x: model(x, mask), model,
                                          images)
    before = copy.deepcopy(model.state_dict())
    model(images, ~draw_mask('shared', 2, grid_of(size)))
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


def test_all_forms_of_a_mask_agree(family):
    """Bool, layout, finer mask and numbers give the same bits."""
    size, kwargs = SHAPES['w7-96x160']
    model = build(family, torch.float32, **kwargs)
    images = draw_images(model, size).float()
    mask = draw_mask('image', len(images), grid_of(size))
    finer = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    with torch.no_grad():
        expected = model(images, mask)
        for form in (VisibleLayout.from_mask(mask), finer, mask.long(),
                     mask.float()):
            assert torch.equal(model(images, form), expected)
        assert torch.equal(model(images, mask=mask), expected)


@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_checkpointing_changes_no_gradient(family, frozen_stages):
    size, kwargs = SHAPES['w7-96x160']
    results = []
    for with_cp in (False, True):
        model = build(
            family, with_cp=with_cp, frozen_stages=frozen_stages, **kwargs)
        model.train()
        images = draw_images(model, size)
        mask = draw_mask('image', len(images), grid_of(size))
        results.append(
            output_and_grads(lambda x: model(x, mask), model, images))
    assert max(errors(*results)) <= 1e-12


@pytest.mark.parametrize('frozen_stages', [0, 1, 3])
def test_frozen_stages_get_no_gradient(family, frozen_stages):
    size, kwargs = SHAPES['w7-96x160']
    model = build(
        family, frozen_stages=frozen_stages, out_indices=(0, 3), **kwargs)
    model.train()
    mask = draw_mask('image', 2, grid_of(size))
    for name, param in model.named_parameters():
        param.grad = None
    latent = model(draw_images(model, size), mask)
    if frozen_stages == 3:
        assert not latent.requires_grad
        return
    latent.square().sum().backward()
    frozen = ('patch_embed', ) + tuple(f'stages.{i}.'
                                       for i in range(frozen_stages + 1))
    for name, param in model.named_parameters():
        if name.startswith(frozen) or name.startswith('norm0'):
            assert param.grad is None, name
        else:
            assert param.grad.ne(0).any(), name


class _FixedDropPath(nn.Module):
    """Drop path with given factors, one for each image of the batch."""

    def __init__(self, factors: Tensor):
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == len(self.factors), 'drop path must act on images'
        return x * self.factors.to(x).view(-1, *[1] * (x.ndim - 1))


def test_drop_path_acts_on_whole_images(family):
    size, kwargs = SHAPES['w7-96x160']
    model = build(family, **{**kwargs, 'drop_path_rate': 0.5})
    factors = torch.tensor([0., 2., 0.5])
    images = draw_images(model, size, batch=3)
    mask = draw_mask('image', 3, grid_of(size))
    expected = family.twin(model, drop_path=factors)(images, mask)
    for stage in model.stages:
        for block in stage.blocks:
            block.attn.drop = _FixedDropPath(factors)
            block.ffn.dropout_layer = _FixedDropPath(factors)
    model.train()
    assert (model(images, mask) - expected).abs().max() <= 1e-10


def test_drop_path_in_training(family):
    size, kwargs = SHAPES['w7-96x160']
    model = build(family, **{**kwargs, 'drop_path_rate': 0.5})
    images = draw_images(model, size)
    mask = draw_mask('image', 2, grid_of(size))
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
    size, kwargs = SHAPES['w7-96x160']
    model = build(family, torch.float32, **kwargs)
    images = draw_images(model, size).float()
    mask = draw_mask(mask_kind, 2, grid_of(size))
    exact, exact_grads = output_and_grads(lambda x: model(x, mask), model,
                                          images)

    def relative_errors(forward):
        with torch.autocast('cpu', torch.bfloat16):
            out, grads = output_and_grads(forward, model, images)
        assert out.isfinite().all()
        flat, exact_flat = (
            torch.cat([x[name].flatten() for name in exact_grads])
            for x in (grads, exact_grads))
        return (float((out - exact).norm() / exact.norm()),
                float((flat - exact_flat).norm() / exact_flat.norm()))

    # bfloat16 has 8 significant bits; the dense twin says what that costs
    actual = relative_errors(lambda x: model(x, mask))
    dense = relative_errors(lambda x: family.twin(model)(x, mask))
    assert max(actual) <= 2e-2
    for error, dense_error in zip(actual, dense):
        assert error <= 1.5 * dense_error


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
@pytest.mark.parametrize(
    'kwargs', [
        dict(),
        dict(drop_path_rate=0.5, drop_rate=0.1),
        dict(with_cp=True),
        dict(use_abs_pos_embed=True, img_size=224),
    ],
    ids=['plain', 'drop', 'checkpointing', 'abs-pos'])
def test_nothing_waits_for_the_device(family, mask_kind, kwargs):
    """Run on the meta device, where reading a value back is an error.

    Mask and plan are made on the CPU. Whatever asked a device tensor for a
    value (``item``, ``tolist``, ``nonzero``, ``equal``, a boolean index, a
    copy to the CPU) would fail here; blocking copies to the device are
    refused by the two modes.
    """
    size, _ = SHAPES['w7-96x160']
    model = build(family, torch.float32, **kwargs).to('meta')
    model.train()
    images = draw_images(model, size).float().to('meta').requires_grad_()
    mask = draw_mask(mask_kind, 2, grid_of(size))
    with _NoBlockingCopy(), _NoTensorFromList():
        latent = model(images, mask)
        assert latent.device.type == 'meta'
        latent.sum().backward()
    assert images.grad.device.type == 'meta'


@pytest.mark.parametrize('mask_scope', ['batch', 'image'])
def test_the_whole_model_does_not_wait(mask_scope):
    """From images to gradients, mask and loss included."""
    family = FAMILIES[0]
    model = GreenMIM(
        backbone=family.green(**family.micro),
        neck=dict(
            type='greenmim.GreenMIMNeck',
            in_channels=64,
            embed_dims=16,
            num_heads=2),
        head=dict(type='greenmim.GreenMIMHead'),
        mask_scope=mask_scope).to('meta')
    model.train()
    images = torch.zeros(2, 3, 96, 160, device='meta')
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
    size, kwargs = SHAPES['w7-96x160']
    model = build(family, torch.float32, **kwargs)
    images = draw_images(model, size).float()
    grid = grid_of(size)
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
