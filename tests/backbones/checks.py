# Copyright (c) greenmim authors. All rights reserved.
"""Models, images and masks of the backbone tests, and their comparison."""
import copy
import math
from typing import Dict, Tuple

import torch
from torch import Tensor, nn

from .family import Family, Size


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


def grid_of(model: nn.Module, size: Size) -> Tuple[int, int]:
    """The unit grid (Gh, Gw) of an image."""
    return size[0] // model.unit_size, size[1] // model.unit_size


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


def build(family: Family,
          dtype: torch.dtype = torch.float64,
          **kwargs) -> nn.Module:
    """A micro model with random parameters, in evaluation mode."""
    model = randomise(family.green(**{**family.micro, **kwargs}))
    model = model.to(dtype)
    model.eval()
    return model


def draw_images(model: nn.Module, size: Size, batch: int = 2) -> Tensor:
    """Normal float64 images (B, C, H, W)."""
    channels = model.image_channels
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


def sensitivity(family: Family, model: nn.Module, images: Tensor, mask: Tensor,
                expected) -> float:
    """Largest change of the twin's gradients by rounding in float32.

    Parameters and images change by up to half a unit in the last place.
    """
    generator = torch.Generator().manual_seed(2)

    def nudge(x: Tensor) -> Tensor:
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype)
        return x * (1 + 2**-24 * (2 * noise - 1))

    nudged = copy.deepcopy(model)
    with torch.no_grad():
        for param in nudged.parameters():
            param.copy_(nudge(param))
    twin = family.twin(nudged)
    actual = output_and_grads(lambda x: twin(x, mask), nudged, nudge(images))
    return errors(actual, expected, 0.1)[1]


def errors(actual, expected, floor: float = 0.) -> Tuple[float, float]:
    """Largest error of the output, and of the gradients.

    That of a gradient is relative to the tensor's largest entry, or to that
    of all gradients times ``floor``, whichever is larger.
    """
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
        scale = max(scale, floor * largest)
        worst = max(worst, float((grad.double() - target).abs().max()) / scale)
    return float((out.double() - expected_out.double()).abs().max()), worst
