# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Optional

from greenmim.models import GivenMask
from greenmim.registry import HOOKS
from .plan_changing_hook import PlanChangingHook


@HOOKS.register_module()
class MaskRatioHook(PlanChangingHook):
    """Change the mask ratio linearly during the run.

    Args:
        start (float): The ratio until ``begin``, in [0, 1).
        end (float): The ratio from ``until`` on, in [0, 1).
        begin (int): Epochs, or iterations if ``by_epoch`` is False, before
            the change. Defaults to 0.
        until (int, optional): When the change ends. Defaults to None: at the
            end of the run.
        by_epoch (bool): Change from epoch to epoch, else from iteration to
            iteration. Defaults to True.

    Raises:
        ValueError: If a ratio is outside [0, 1), or the change ends before
            it begins.
    """

    def __init__(self,
                 start: float,
                 end: float,
                 begin: int = 0,
                 until: Optional[int] = None,
                 by_epoch: bool = True) -> None:
        super().__init__(by_epoch)
        for ratio in (start, end):
            if not 0 <= ratio < 1:
                raise ValueError(
                    f'expected ratios in [0, 1), got {start} and {end}')
        if begin < 0 or until is not None and until <= begin:
            raise ValueError('expected 0 <= begin < until, got '
                             f'begin={begin} and until={until}')
        self.start = start
        self.end = end
        self.begin = begin
        self.until = until

    def check(self, model: Any, length: int) -> None:
        if isinstance(model.mask_planner.sampler, GivenMask):
            raise ValueError('expected a mask sampler that follows the mask '
                             'ratio, got given masks; leave MaskRatioHook out')
        if self.until is None:
            # The last step has the last ratio.
            self.until = max(length - 1, self.begin + 1)

    def change(self, model: Any, now: int) -> None:
        assert self.until is not None
        progress = (now - self.begin) / (self.until - self.begin)
        progress = min(max(progress, 0.), 1.)
        ratio = self.start + progress * (self.end - self.start)
        model.mask_planner.mask_ratio = ratio
