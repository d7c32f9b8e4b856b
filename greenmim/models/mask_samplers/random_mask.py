# Copyright (c) greenmim authors. All rights reserved.
from typing import Optional

import torch
from torch import Tensor

from greenmim.ops import random_mask
from greenmim.ops.mask_unit import Grid
from greenmim.registry import TASK_UTILS


@TASK_UTILS.register_module()
class RandomMask:
    """Hides units uniformly at random, as MAE, SimMIM and GreenMIM do."""

    def __call__(self,
                 num_masks: int,
                 grid: Grid,
                 mask_ratio: float,
                 generator: Optional[torch.Generator] = None) -> Tensor:
        """See :func:`greenmim.ops.random_mask`."""
        return random_mask(num_masks, grid, mask_ratio, generator)
