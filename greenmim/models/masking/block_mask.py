# Copyright (c) greenmim authors. All rights reserved.
import math
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from greenmim.ops.mask_unit import Grid
from greenmim.registry import TASK_UTILS
from .random_mask import num_visible_units


@TASK_UTILS.register_module()
class BlockMask:
    """Hides rectangles of units until exactly the wanted number is hidden.

    Block-wise masking of `BEiT <https://arxiv.org/abs/2106.08254>`_
    (algorithm 1): area, aspect ratio and place of a block are drawn, the
    ratio evenly on a logarithmic scale. The last block is cut off, row by
    row, where it would hide too much. Units in the middle lie in more blocks
    than those at the border, and are hidden more often.

    Args:
        min_units (int): The smallest area that is drawn, in units. Defaults
            to 4 of the 7x7 units of an image of 224 px, which matches BEiT's
            16 of 14x14 patches.
        max_aspect (float): The longest side in multiples of the other.
            Defaults to 10/3, as in the paper.

    Raises:
        ValueError: If an argument is less than 1.
    """

    def __init__(self, min_units: int = 4, max_aspect: float = 10 / 3) -> None:
        if min_units < 1 or max_aspect < 1:
            raise ValueError('expected min_units >= 1 and max_aspect >= 1, '
                             f'got {min_units} and {max_aspect}')
        self.min_units = min_units
        self.max_aspect = max_aspect

    def __call__(self,
                 num_masks: int,
                 grid: Grid,
                 mask_ratio: float,
                 generator: Optional[torch.Generator] = None) -> Tensor:
        """See :func:`greenmim.models.masking.random_mask`."""
        num_units = grid[0] * grid[1]
        hidden = num_units - num_visible_units(num_units, mask_ratio)
        masks = np.zeros((num_masks, *grid), dtype=bool)
        for mask in masks:
            missing = hidden
            while missing:
                missing -= self._hide_block(mask, missing, generator)
        return torch.from_numpy(masks)

    def _hide_block(self, mask: np.ndarray, most: int,
                    generator: Optional[torch.Generator]) -> int:
        """Draw a block, hide at most ``most`` units, return their number."""
        area, aspect, top, left = torch.rand(4, generator=generator).tolist()
        least = min(self.min_units, most)
        area = least + area * (most - least)
        side = self.max_aspect**(aspect - 0.5)  # the root of the aspect
        rows, cols = mask.shape
        height = min(max(round(math.sqrt(area) * side), 1), rows)
        width = min(max(round(math.sqrt(area) / side), 1), cols)
        top = int(top * (rows - height + 1))
        left = int(left * (cols - width + 1))
        block = mask[top:top + height, left:left + width]
        new = np.argwhere(~block)[:most]
        block[new[:, 0], new[:, 1]] = True
        return len(new)
