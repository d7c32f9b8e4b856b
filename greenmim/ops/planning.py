# Copyright (c) greenmim authors. All rights reserved.
"""Plans for all stages of a backbone, made from a mask alone on the CPU."""
from collections import OrderedDict
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple, Union

from torch import Tensor

from .grouping import GroupPlan, Window, WindowMaps, plan_maps
from .mask_unit import Grid, VisibleLayout

# Measured on two CPU cores: 17 to 31, depending on the tensors' sizes
# (tools/analysis_tools/fit_attention_cost.py).
SLOT_COST = 20.


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

    def __deepcopy__(self, memo: dict) -> 'MaskPlan':
        return self  # it is never changed

    @property
    def fill_rate(self) -> float:
        """The share of slots that hold a token, over all plans; 1 of none."""
        plans = [plan for groups in self.groups for plan in groups.values()]
        if not plans:
            return 1.
        return (sum(len(plan.slot_of_token) for plan in plans) /
                sum(len(plan.token_of_slot) for plan in plans))


class GroupPlanner:
    """Makes the plans of one backbone.

    It can be copied to data-loading workers. What depends on the grid alone
    is computed once; plans of recent masks are kept, for masks that repeat.

    Args:
        stages (Sequence[StageWindows]): The stages.
        overhead (float): Cost of a token slot in units of one logit, see
            :mod:`.packing`. Defaults to ``SLOT_COST``, which was measured.
        cache_size (int): Number of plans that are kept. Defaults to 0.

    Raises:
        ValueError: If ``cache_size`` is negative.
    """

    def __init__(self,
                 stages: Sequence[StageWindows],
                 overhead: float = SLOT_COST,
                 cache_size: int = 0) -> None:
        if cache_size < 0:
            raise ValueError(f'expected cache_size >= 0, got {cache_size}')
        self.stages = tuple(stages)
        self.overhead = overhead
        self.cache_size = cache_size
        self._maps: Dict[Grid, Tuple[List[List[Window]], WindowMaps]] = {}
        self._plans: 'OrderedDict[bytes, MaskPlan]' = OrderedDict()

    def __call__(self, mask: Union[Tensor, VisibleLayout],
                 grid: Grid) -> MaskPlan:
        """Plan the groups of all stages and kinds of windows.

        Args:
            mask (Tensor | VisibleLayout): Bool of shape (M, Gh, Gw), True =
                masked, or the layout made from it.
            grid (tuple[int, int]): The unit grid (Gh, Gw).

        Raises:
            ValueError: If mask and grid do not fit, or images are padded and
                have other windows than they have alone.
        """
        layout = VisibleLayout.from_mask(mask, grid)
        if not self.cache_size:
            return self._plan(layout)
        key = repr(layout.visible.shape).encode()
        key += layout.visible.numpy().tobytes()
        if layout.valid is not None:
            key += layout.valid.numpy().tobytes()
        plan = self._plans.pop(key, None) or self._plan(layout)
        self._plans[key] = plan
        if len(self._plans) > self.cache_size:
            self._plans.popitem(last=False)
        return plan

    def _plan(self, layout: VisibleLayout) -> MaskPlan:
        if not any(stage.windows for stage in self.stages):
            return MaskPlan(layout, [{} for _ in self.stages])
        if layout.grid not in self._maps:
            self._maps[layout.grid] = self._map(layout.grid)
        windows, maps = self._maps[layout.grid]
        self._check_padding(layout, windows)
        plans = iter(plan_maps(layout, maps, self.overhead))
        return MaskPlan(layout, [{
            window: next(plans)
            for window in stage
        } for stage in windows])

    def _map(self, grid: Grid) -> Tuple[List[List[Window]], WindowMaps]:
        """The windows in use on a grid, stage by stage, and their maps."""
        windows = self._fit(grid)
        maps = [(stage.side, window)
                for stage, used in zip(self.stages, windows)
                for window in used]
        return windows, WindowMaps.make(grid, maps)

    def _fit(self, grid: Grid) -> List[List[Window]]:
        """The windows in use on a grid, stage by stage."""
        windows = []
        for stage in self.stages:
            size = (grid[0] * stage.side, grid[1] * stage.side)
            used = (
                window.fit(size, stage.pad_small_map)
                for window in stage.windows)
            windows.append(list(dict.fromkeys(used)))
        return windows

    def _check_padding(self, layout: VisibleLayout,
                       windows: List[List[Window]]) -> None:
        """Refuse padding that changes the windows of an image."""
        if layout.valid is None:
            return
        rows, cols = layout.valid.any(2).sum(1), layout.valid.any(1).sum(1)
        for grid in sorted(set(zip(rows.tolist(), cols.tolist()))):
            if self._fit(grid) != windows:
                raise ValueError(
                    f'expected an image of {grid} units to have the same '
                    f'windows in a batch padded to {layout.grid} units as '
                    'alone, but they shrink to the map of a small image; set '
                    'pad_small_map=True of the backbone, or enlarge the '
                    'smallest images')
