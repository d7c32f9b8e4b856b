# Copyright (c) greenmim authors. All rights reserved.
"""Compiled blocks: how often they are compiled, and what they compute.

All tests but one count graphs with a compiler that runs them as they are.
"""
import copy
import os
import pickle
import shutil
from functools import partial

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from greenmim.models import (GreenMIMSwinTransformer,
                             GreenMIMSwinTransformerV2,
                             GreenMIMVisionTransformer)
from greenmim.models.masking import random_mask
from greenmim.models.visible import Compiled
from tests.backbones import FAMILIES
from tests.backbones.checks import build as build_micro
from tests.backbones.checks import draw_images as draw_images_of
from tests.backbones.checks import grid_of
from tests.backbones.family import Family
from tests.conftest import skip_or_fail

GRID = (4, 5)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def counter(monkeypatch) -> CompileCounterWithBackend:
    """Counts graphs. A function that is not one graph as a whole fails, and
    so does one that is compiled more often than dynamo's limit allows."""
    counter = CompileCounterWithBackend('eager')
    monkeypatch.setattr(
        torch, 'compile',
        partial(torch.compile, backend=counter, fullgraph=True))
    return counter


def build(compile_blocks: bool = True,
          depths: tuple = (1, 1, 2, 1),
          swin: type = GreenMIMSwinTransformer,
          **kwargs) -> nn.Module:
    """The same random Swin, V1 or V2, for the same arguments."""
    num_stages = len(depths)
    arch = dict(
        embed_dims=16,
        depths=list(depths),
        num_heads=[1, 2, 4, 8][:num_stages])
    if swin is GreenMIMSwinTransformerV2:
        arch['extra_norm_every_n_blocks'] = 0
    torch.manual_seed(0)
    model = swin(
        arch=arch,
        out_indices=(num_stages - 1, ),
        window_size=4,
        drop_path_rate=0.,
        compile_blocks=compile_blocks,
        **kwargs)
    return randomize(model)


def build_vit(compile_blocks: bool = True, **kwargs) -> nn.Module:
    """The same random ViT for the same arguments."""
    torch.manual_seed(0)
    model = GreenMIMVisionTransformer(
        arch=dict(
            embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
        img_size=64,
        patch_size=16,
        out_type='featmap',
        compile_blocks=compile_blocks,
        **kwargs)
    return randomize(model)


def randomize(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def draw_images(model: nn.Module, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    size = [cells * model.unit_size for cells in GRID]
    return torch.randn(batch, 3, *size, generator=generator)


def step(model: nn.Module, images: Tensor, mask: Tensor) -> list:
    """The latent, and the gradients of a random linear loss."""
    model.zero_grad()
    latent = model(images, mask)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(latent.shape, generator=generator)
    (latent * weight).sum().backward()
    return [latent.detach()] + [p.grad.clone() for p in model.parameters()]


def assert_bits_equal(actual: list, expected: list) -> None:
    for value, target in zip(actual, expected, strict=True):
        assert torch.equal(value, target)


def build_family(family: Family,
                 compile_blocks: bool = True,
                 **kwargs) -> nn.Module:
    """The same random micro model for the same arguments, in training mode.

    Its branches are dropped with rates of their own.
    """
    options = {**family.cases[family.default][1], **kwargs}
    options.update(compile_blocks=compile_blocks)
    return build_micro(
        family, torch.float32, drop_path_rate=0.3, **options).train()


def functions_of(model: nn.Module) -> int:
    """Functions that a masked forward of a model compiles, one for a stage
    and kind of code."""
    found = vars(model).values()
    kinds = [value for value in found if isinstance(value, Compiled)]
    lists = [value for value in found if isinstance(value, list)]
    return len(kinds) + sum(
        isinstance(item, Compiled) for value in lists for item in value)


@pytest.mark.parametrize(
    'evaluate', [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=['train', 'evaluate'])
@pytest.mark.parametrize('family', FAMILIES, ids=str)
def test_every_family(counter, family, evaluate):
    """Latents and gradients, with branches that are dropped at rates of
    their own, and how often they are compiled."""
    model, plain = (build_family(family, flag) for flag in (True, False))
    size = family.cases[family.default][0]
    grid = grid_of(model, size)
    images = draw_images_of(model, size, batch=3).float()
    for seed in range(3):
        mask = random_mask(1, grid, 0.5, torch.Generator().manual_seed(seed))
        results = []
        for net in (model, plain):
            torch.manual_seed(5)  # of drop path
            results.append(step(net, images, mask))
        assert_bits_equal(*results)
    # Twins-PCPVT has no windows, around which two functions are compiled.
    functions = functions_of(model) // (3 if family.name == 'pcpvt' else 1)
    assert counter.frame_count == functions
    if not evaluate:
        return
    model.eval(), plain.eval()
    with torch.no_grad():
        for _ in range(3):
            mask = random_mask(1, grid, 0.5)
            assert torch.equal(model(images, mask), plain(images, mask))
    assert counter.frame_count <= 2 * functions


# Builder and number of graphs: two functions for each of the four stages of
# a Swin, one for all layers of a ViT
BACKBONES = {
    'swin': (build, 8),
    'swin_v2': (partial(build, swin=GreenMIMSwinTransformerV2), 8),
    'vit': (build_vit, 1),
}


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('num_masks, with_cp, num_steps', [
    (1, False, 200),
    pytest.param(1, False, 1000, marks=pytest.mark.slow),
    (2, False, 30),
    (1, True, 30),
])
def test_masks_share_graphs(counter, name, num_masks, with_cp, num_steps):
    """Every function is compiled in the first step, and never again."""
    build_model, num_graphs = BACKBONES[name]
    model, plain = build_model(with_cp=with_cp), build_model(False)
    images = draw_images(model)
    generator = torch.Generator().manual_seed(1)
    for i in range(num_steps):
        mask = random_mask(num_masks, GRID, 0.75, generator)
        result = step(model, images, mask)
        assert counter.frame_count == num_graphs, f'after {i + 1} masks'
        if i % 50 == 0 or i + 1 == num_steps:
            assert_bits_equal(result, step(plain, images, mask))


def test_blocks_of_a_stage_share_graphs(counter):
    model = build(depths=(2, 1, 12, 2))
    step(model, draw_images(model), random_mask(1, GRID, 0.5))
    assert counter.frame_count == 8


def test_other_shapes_are_compiled_once(counter):
    model, plain = build(), build(False)
    images = draw_images(model)
    # The second number of units compiles code for any number.
    for ratio, frames in ((0.75, 8), (0.5, 16), (0.75, 16), (0.5, 16),
                          (0.6, 16), (0.8, 16)):
        mask = random_mask(1, GRID, ratio)
        assert_bits_equal(step(model, images, mask), step(plain, images, mask))
        assert counter.frame_count == frames


@pytest.mark.parametrize('backend', ['eager', 'sdpa'])
def test_nothing_is_compiled_unless_asked_for(counter, backend):
    model = build(False, attn_backend=backend)
    step(model, draw_images(model), random_mask(1, GRID, 0.75))
    model = build(True, attn_backend=backend)
    model(draw_images(model))  # nor is the dense forward
    assert counter.frame_count == 0


@pytest.mark.parametrize(
    'copied', [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: ExponentialMovingAverage(model, momentum=0.5).module,
    ],
    ids=['deepcopy', 'pickle', 'ema'])
@pytest.mark.parametrize('used', [False, True])
def test_copies(counter, copied, used):
    """MMEngine's EMA hook copies the model, spawned processes pickle it."""
    model = build()
    images, mask = draw_images(model), random_mask(1, GRID, 0.75)
    expected = step(build(False), images, mask)
    if used:
        step(model, images, mask)
    other = copied(model).requires_grad_()
    assert_bits_equal(step(other, images, mask), expected)
    assert counter.frame_count > 0
    nn.init.zeros_(other.norm3.weight)  # it shares no parameter
    assert_bits_equal(step(model, images, mask), expected)


def test_the_moving_average_follows(counter):
    model = build()
    images, mask = draw_images(model), random_mask(1, GRID, 0.75)
    average = ExponentialMovingAverage(model, momentum=0.5)
    other = build(False)
    for source, target in zip(other.parameters(), model.parameters()):
        nn.init.normal_(source, std=0.1)
        target.data.copy_(source)
    average.update_parameters(model)  # the first call copies
    with torch.no_grad():
        assert torch.equal(average(images, mask), other(images, mask))


def test_a_mode_of_the_compiler(monkeypatch):
    with pytest.raises(ValueError, match="a mode of torch.compile, got 'fas"):
        build(compile_blocks='fastest')
    asked = []

    def compile_(function, **options):
        asked.append(options)
        return function

    monkeypatch.setattr(torch, 'compile', compile_)
    build_vit(compile_blocks='reduce-overhead')
    build_vit(compile_blocks=True)
    assert asked == [dict(mode='reduce-overhead'), dict(mode=None)]


def test_the_real_compiler():
    """Outputs and gradients of two stages, compiled to machine code."""
    compilers = ('g++', 'clang++', os.environ.get('CXX', 'c++'))
    if not any(map(shutil.which, compilers)):
        skip_or_fail('torch.compile needs a C++ compiler, found none of '
                     f'{compilers}')
    model, plain = build(depths=(1, 1)), build(False, depths=(1, 1))
    images, mask = draw_images(model), random_mask(2, GRID, 0.75)
    actual, expected = (step(net, images, mask) for net in (model, plain))
    # other operators ran, whose last bits differ
    assert not all(map(torch.equal, actual, expected))
    for value, target in zip(actual, expected, strict=True):
        assert (value - target).abs().max() <= 1e-5 * target.abs().max()
