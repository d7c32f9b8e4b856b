# Copyright (c) greenmim authors. All rights reserved.
from typing import Callable, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from greenmim.ops import GroupPlanner, MaskPlan, VisibleLayout, unit_grid
from greenmim.ops.capacity import MASKS
from greenmim.ops.mask_unit import Grid
from .random_mask import RandomMask, num_visible_units, random_mask
from .uniform_mask import UniformMask

# (num_masks, grid, mask_ratio, generator) -> bool (M, Gh, Gw), True = masked
Sampler = Callable[[int, Grid, float, Optional[torch.Generator]], Tensor]

# Of a sampler that takes about a millisecond for a mask, see `fix_capacity`.
MOST_DRAWS = 1000


class MaskPlanner:
    """Draws the masks of a batch and plans them, on the CPU.

    It can be copied to data-loading workers, so that drawing and planning do
    not take time of the training process.

    Args:
        group_planner (GroupPlanner): The planner of the backbone.
        unit_size (int): Side of a mask unit in pixels.
        mask_ratio (float): Share of the units that is masked, in [0, 1).
            Defaults to 0.75.
        mask_scope (str): ``'batch'``, one mask for the images of a batch, or
            ``'image'``, one for every image. Defaults to ``'batch'``.
        sampler (Callable): Draws masks as :func:`random_mask` does, which is
            the default.

    Raises:
        ValueError: If ratio or scope is invalid.
    """

    def __init__(self,
                 group_planner: GroupPlanner,
                 unit_size: int,
                 mask_ratio: float = 0.75,
                 mask_scope: str = 'batch',
                 sampler: Sampler = random_mask) -> None:
        if not (isinstance(mask_ratio, (int, float)) and 0 <= mask_ratio < 1):
            raise ValueError(
                f'expected 0 <= mask_ratio < 1, got {mask_ratio!r}')
        if mask_scope not in ('batch', 'image'):
            raise ValueError("expected mask_scope to be 'batch' or 'image', "
                             f'got {mask_scope!r}')
        self.group_planner = group_planner
        self.unit_size = unit_size
        self.mask_ratio = mask_ratio
        self.mask_scope = mask_scope
        self.sampler = sampler

    def __call__(self,
                 num_images: int,
                 image_size: Sequence[int],
                 mask: Optional[Union[Tensor, VisibleLayout]] = None,
                 generator: Optional[torch.Generator] = None,
                 own_sizes: Optional[Sequence[Grid]] = None) -> MaskPlan:
        """Plan a given mask, or draw one.

        If images of several sizes are padded to one, every image keeps the
        number of visible units that ``mask_ratio`` leaves in the smallest
        image, drawn from the image's own units. So a larger share of larger
        images is masked.

        Args:
            num_images (int): Images of the batch.
            image_size (Sequence[int]): Their height and width in pixels.
            mask (Tensor | VisibleLayout, optional): Bool of shape
                (M, Gh, Gw), True = masked. Defaults to None, it is drawn.
            generator (torch.Generator, optional): A CPU generator to draw
                from. Defaults to None, torch's global one.
            own_sizes (Sequence[tuple[int, int]], optional): Height and width
                in pixels of every image before it was padded at the right
                and the bottom. Defaults to None, no image is padded.

        Raises:
            ValueError: If image and mask do not fit, or images of several
                sizes would share one mask.
        """
        grid = unit_grid(image_size, self.unit_size)
        own_grids = [(-(-height // self.unit_size),
                      -(-width // self.unit_size))
                     for height, width in own_sizes or ()]
        valid = None
        if set(own_grids) - {grid}:
            valid = torch.zeros(len(own_grids), *grid, dtype=torch.bool)
            for image, (rows, cols) in zip(valid, own_grids):
                image[:rows, :cols] = True
        if mask is None and valid is not None:
            mask = self._draw_each(own_grids, grid, generator)
        elif mask is None:
            num_masks = 1 if self.mask_scope == 'batch' else num_images
            mask = self.sampler(num_masks, grid, self.mask_ratio, generator)
            self._fix_capacity(mask)
        layout = VisibleLayout.from_mask(mask, grid, valid)
        return self.group_planner(layout)

    def prepare(self, num_images: int, image_size: Sequence[int]) -> None:
        """Fix the groups of batches like this one before any is planned.

        That draws many masks, see :mod:`greenmim.ops.capacity`, which copies
        of the planner then need not do. The global generator is not used. A
        size that does not suit the mask units is left to be refused later.
        """
        if not self.group_planner.fixed or any(side % self.unit_size
                                               for side in image_size):
            return
        num_masks = 1 if self.mask_scope == 'batch' else num_images
        self._fix_capacity(
            self.sampler(num_masks, unit_grid(image_size, self.unit_size),
                         self.mask_ratio,
                         torch.Generator().manual_seed(0)))

    def _fix_capacity(self, mask: Tensor) -> None:
        """Fix the groups of masks like this one, drawn by the sampler.

        They are drawn alike in every process, from a generator of their own.
        """
        if not self.group_planner.fixed:
            return
        num_masks, *sides = mask.shape
        grid = (sides[0], sides[1])

        def draw_units(number: int) -> np.ndarray:
            masks = self.sampler(number, grid, self.mask_ratio,
                                 torch.Generator().manual_seed(0))
            return VisibleLayout.from_mask(masks).units.numpy()

        # Other samplers draw masks one by one.
        all_at_once = (
            self.sampler is random_mask
            or isinstance(self.sampler, (RandomMask, UniformMask)))
        self.group_planner.fix_capacity(grid, num_masks, int(
            (~mask[0]).sum()), draw_units,
                                        MASKS if all_at_once else MOST_DRAWS)

    def _draw_each(self, own_grids: Sequence[Grid], grid: Grid,
                   generator: Optional[torch.Generator]) -> Tensor:
        """Draw a mask for each image within its own units."""
        if self.mask_scope == 'batch':
            raise ValueError(
                'expected images of one size, as they share a mask, got '
                f'{sorted(set(own_grids))} units; set mask_scope=\'image\' of '
                'the model')
        sizes = [rows * cols for rows, cols in own_grids]
        kept = num_visible_units(min(sizes), self.mask_ratio)
        masks = torch.ones(len(sizes), *grid, dtype=torch.bool)
        for mask, size, (rows, cols) in zip(masks, sizes, own_grids):
            mask[:rows, :cols] = self.sampler(1, (rows, cols), 1 - kept / size,
                                              generator)[0]
        return masks
