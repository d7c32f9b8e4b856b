# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Sequence, Union

from mmengine.logging import print_log
from mmengine.utils import to_2tuple

from greenmim.ops import unit_grid
from greenmim.registry import HOOKS
from .plan_changing_hook import PlanChangingHook


@HOOKS.register_module()
class ImageSizeHook(PlanChangingHook):
    """Train with small images first, and larger ones later.

    The pipeline crops to the largest size; the model scales a batch down on
    its device. Weights do not depend on the size: a window that exceeds the
    map shrinks to it and reads the middle of its bias table, so checkpoints
    have the same tensors at every size. A dense ``SwinTransformer`` of
    MMPretrain needs windows that fit the smallest map, or ``pad_small_map``.

    Args:
        sizes (Sequence[int | Sequence[int]]): Sides of the images in pixels,
            or their heights and widths, in the order of training. Multiples of
            the mask unit, at most the size that the pipeline crops.
        milestones (Sequence[int]): When each size but the first begins,
            in epochs, or iterations where ``by_epoch`` is False.
        by_epoch (bool): Whether milestones are epochs. Defaults to True.

    Raises:
        ValueError: If milestones do not ascend, or there is not one for each
            size but the first.
    """

    def __init__(self,
                 sizes: Sequence[Union[int, Sequence[int]]],
                 milestones: Sequence[int],
                 by_epoch: bool = True) -> None:
        super().__init__(by_epoch)
        if len(sizes) != len(milestones) + 1:
            raise ValueError(
                'expected a milestone for each size but the first, got '
                f'{len(sizes)} sizes and {len(milestones)} milestones')
        if list(milestones) != sorted({m for m in milestones if m > 0}):
            raise ValueError('expected milestones above 0 in ascending order, '
                             f'got {list(milestones)}')
        self.sizes = [tuple(to_2tuple(size)) for size in sizes]
        self.milestones = list(milestones)

    def check(self, model: Any, length: int) -> None:
        for size in self.sizes:
            unit_grid(size, model.unit_size)
        if self.milestones and self.milestones[-1] >= length:
            raise ValueError(
                f'expected milestones within the run of {length} '
                f'{"epochs" if self.by_epoch else "iterations"}, got '
                f'{self.milestones}')

    def change(self, model: Any, now: int) -> None:
        size = self.sizes[sum(now >= m for m in self.milestones)]
        if model.image_size != size:
            print_log(
                f'Training with images of {size[0]}x{size[1]} pixels from '
                'now on.',
                logger='current')
            model.image_size = size
