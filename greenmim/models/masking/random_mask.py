# Copyright (c) greenmim authors. All rights reserved.
from typing import Optional

import torch
from torch import Tensor

from greenmim.ops.mask_unit import Grid
from greenmim.registry import TASK_UTILS


def num_visible_units(num_units: int, mask_ratio: float) -> int:
    """``int(num_units * (1 - mask_ratio))`` units stay visible.

    Args:
        num_units (int): Units of an image, L.
        mask_ratio (float): The share of hidden units, in [0, 1).

    Returns:
        int: Visible units, K.

    Raises:
        ValueError: If the ratio is outside [0, 1) or leaves no unit.
    """
    if not 0 <= mask_ratio < 1:
        raise ValueError(f'expected 0 <= mask_ratio < 1, got {mask_ratio}')
    # The tolerance keeps 10 * (1 - 0.9) = 0.9999999999999998 at one unit.
    kept = int(num_units * (1 - mask_ratio) + 1e-6)
    if kept == 0:
        raise ValueError(
            f'expected a mask_ratio that leaves a visible unit, got '
            f'{mask_ratio} of {num_units} units; lower it or enlarge the '
            'image')
    return kept


def random_mask(num_masks: int,
                grid: Grid,
                mask_ratio: float,
                generator: Optional[torch.Generator] = None) -> Tensor:
    """Draw masks that hide units uniformly at random.

    Args:
        num_masks (int): M, 1 for a mask shared by the batch.
        grid (tuple[int, int]): The unit grid (Gh, Gw).
        mask_ratio (float): The share of hidden units, see
            :func:`num_visible_units`.
        generator (torch.Generator, optional): A CPU generator. Defaults to
            None, torch's global one.

    Returns:
        Tensor: Bool of shape (M, Gh, Gw) on the CPU, True = masked.
    """
    num_units = grid[0] * grid[1]
    kept = num_visible_units(num_units, mask_ratio)
    order = torch.rand(num_masks, num_units, generator=generator).argsort(1)
    mask = torch.ones(num_masks, num_units, dtype=torch.bool)
    return mask.scatter_(1, order[:, :kept], False).view(num_masks, *grid)


@TASK_UTILS.register_module()
class RandomMask:
    """Hides units uniformly at random, as MAE, SimMIM and GreenMIM do."""

    __call__ = staticmethod(random_mask)
