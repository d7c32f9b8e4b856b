# Copyright (c) greenmim authors. All rights reserved.
"""Plans for all stages of a backbone, made from a mask alone on the CPU."""
from collections import OrderedDict
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple, Union

from torch import Tensor

from .grouping import GroupPlan, Window, WindowMap, plan_groups
from .mask_unit import Grid, VisibleLayout


@dataclass(frozen=True)
class StageWindows:
    """The window attention of one stage.

    Args:
        side (int): Tokens along a unit's side.
        windows (tuple[Window, ...]): The kinds of windows of its blocks.
        pad_small_map (bool): See :meth:`Window.fit`.
    """
    side: int
    windows: Tuple[Window, ...]
    pad_small_map: bool = False


@dataclass(frozen=True, eq=False)
class MaskPlan:
    """Everything that a mask determines for one backbone.

    Args:
        layout (VisibleLayout): The visible units.
        groups (list[dict[Window, GroupPlan]]): The group plan of every kind
            of window, stage by stage.
    """
    layout: VisibleLayout
    groups: List[Dict[Window, GroupPlan]]

    @property
    def fill_rate(self) -> float:
        """The share of slots that hold a token, over all plans."""
        plans = [plan for groups in self.groups for plan in groups.values()]
        return (sum(len(plan.slot_of_token) for plan in plans) /
                sum(len(plan.token_of_slot) for plan in plans))


class GroupPlanner:
    """Makes the plans of one backbone.

    It can be copied to data-loading workers. What depends on the grid alone
    is computed once; plans of recent masks are kept, for masks that repeat.

    Args:
        stages (Sequence[StageWindows]): The stages.
        overhead (float): Cost of a token slot in units of one logit, see
            :mod:`.packing`. Defaults to 0.
        cache_size (int): Number of plans that are kept. Defaults to 0.
    """

    def __init__(self,
                 stages: Sequence[StageWindows],
                 overhead: float = 0.,
                 cache_size: int = 0) -> None:
        if cache_size < 0:
            raise ValueError(f'expected cache_size >= 0, got {cache_size}')
        self.stages = tuple(stages)
        self.overhead = overhead
        self.cache_size = cache_size
        self._window_maps: Dict[Tuple[Grid, int, Window], WindowMap] = {}
        self._plans: 'OrderedDict[bytes, MaskPlan]' = OrderedDict()

    def __call__(self, mask: Union[Tensor, VisibleLayout],
                 grid: Grid) -> MaskPlan:
        """Plan the groups of all stages and kinds of windows.

        Args:
            mask (Tensor | VisibleLayout): Bool of shape (M, Gh, Gw), True =
                masked, or the layout made from it.
            grid (tuple[int, int]): The unit grid (Gh, Gw).
        """
        layout = VisibleLayout.from_mask(mask, grid)
        if not self.cache_size:
            return self._plan(layout)
        key = repr(layout.visible.shape).encode()
        key += layout.visible.numpy().tobytes()
        plan = self._plans.pop(key, None) or self._plan(layout)
        self._plans[key] = plan
        if len(self._plans) > self.cache_size:
            self._plans.popitem(last=False)
        return plan

    def _plan(self, layout: VisibleLayout) -> MaskPlan:
        groups = []
        for stage in self.stages:
            rows, cols = layout.grid
            size = (rows * stage.side, cols * stage.side)
            windows = (
                window.fit(size, stage.pad_small_map)
                for window in stage.windows)
            groups.append({
                window:
                plan_groups(layout, stage.side, window, self.overhead,
                            self._window_map(layout.grid, stage.side, window))
                for window in dict.fromkeys(windows)
            })
        return MaskPlan(layout, groups)

    def _window_map(self, grid: Grid, side: int, window: Window) -> WindowMap:
        key = (grid, side, window)
        if key not in self._window_maps:
            self._window_maps[key] = WindowMap.make(*key)
        return self._window_maps[key]
