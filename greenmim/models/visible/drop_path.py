# Copyright (c) greenmim authors. All rights reserved.
"""Stochastic depth that is drawn before the blocks run.

A residual branch x of an image becomes ``x / d``. The divisor d is the
probability of keeping the branch where it is kept, and infinity where it is
dropped. Blocks get the divisors as arguments, so that compiled code does not
depend on their rates, and the numbers of a whole stage are drawn at once. They
are those that MMCV's ``DropPath`` draws one after another, and its results.
"""
from functools import lru_cache
from typing import Any, List, Optional, Sequence, Tuple

import torch
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn

# Of the branches of a block in their order, each (B, 1, ...) or None
Divisors = Sequence[Optional[Tensor]]


def draw_drop_paths(blocks: Sequence[Sequence[nn.Module]],
                    x: Tensor) -> List[Divisors]:
    """Draw what blocks drop.

    Args:
        blocks (Sequence[Sequence[nn.Module]]): Of every block the drop path
            of each branch, or an identity in its place.
        x (Tensor): The input of the blocks, (B, ...).

    Returns:
        list[Divisors]: Of every block. They are tensors for all branches, or
        None for all where none is ever dropped.

    Raises:
        ValueError: If a branch is dropped by another module.
    """
    rates = [_rate(module) for modules in blocks for module in modules]
    keep = [1 - rate for rate in rates if rate]
    if not keep:
        return [[None] * len(modules) for modules in blocks]
    shape = (len(x), ) + (1, ) * (x.ndim - 1)
    dtype = torch.promote_types(x.dtype, torch.float32)
    numbers = torch.rand((len(keep), *shape), dtype=dtype, device=x.device)
    probabilities = _on_device(tuple(keep), dtype, x.device)
    probabilities = probabilities.view(-1, *[1] * x.ndim)
    numbers.add_(probabilities).floor_()  # 1 = kept
    drawn = numbers.reciprocal_().mul_(probabilities).unbind()
    # One tensor for two branches would be other code than two tensors.
    others = x.new_ones((rates.count(0.), *shape), dtype=dtype).unbind()
    divisors, ones = iter(drawn), iter(others)
    of_branches = iter(
        [next(divisors) if rate else next(ones) for rate in rates])
    return [[next(of_branches) for _ in modules] for modules in blocks]


@lru_cache(maxsize=64)
def _on_device(numbers: Tuple[float, ...], dtype: torch.dtype,
               device: torch.device) -> Tensor:
    """Constants, which are sent to a device once."""
    return torch.tensor(numbers, dtype=dtype).to(device, non_blocking=True)


def _rate(module: Any) -> float:
    if isinstance(module, nn.Identity):
        return 0.
    if not isinstance(module, DropPath):
        raise ValueError(
            'expected DropPath for the residual branches of a masked forward, '
            f'got {type(module).__name__}; set drop_path_rate of the backbone')
    return float(module.drop_prob) if module.training else 0.


def drop(x: Tensor, divisor: Optional[Tensor]) -> Tensor:
    """A residual branch, dropped where it was drawn so.

    Args:
        x (Tensor): The branch, (B, ...).
        divisor (Tensor | None): Of :func:`draw_drop_paths`.
    """
    return x if divisor is None else (x / divisor).to(x.dtype)
