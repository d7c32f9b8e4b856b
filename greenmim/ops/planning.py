# Copyright (c) greenmim authors. All rights reserved.
"""Plans for all stages of a backbone, made from the mask alone on the CPU.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

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
    """
    side: int
    windows: Tuple[Window, ...]


@dataclass(frozen=True, eq=False)
class MaskPlan:
    """Everything that a mask determines for one backbone.

    Args:
        layout (VisibleLayout): The visible units.
        groups (list[dict[Window, GroupPlan]]): Stage by stage, the group plan
            of every kind of window. The keys are the blocks' own windows;
            those that become the same window on a small map share a plan.
    """
    layout: VisibleLayout
    groups: List[Dict[Window, GroupPlan]]

    def __deepcopy__(self, memo: dict) -> 'MaskPlan':
        return self  # it is never changed

    @property
    def fill_rate(self) -> float:
        """The share of slots that hold a token, over all plans; 1 of none."""
        plans = {plan for groups in self.groups for plan in groups.values()}
        if not plans:
            return 1.
        return (sum(len(plan.slot_of_token) for plan in plans) /
                sum(len(plan.token_of_slot) for plan in plans))


class GroupPlanner:
    """Makes the plans of one backbone.

    It can be copied to data-loading workers. Whatever depends only on the
    unit grid is computed once.

    Args:
        stages (Sequence[StageWindows]): The stages.
        overhead (float): Cost of a token slot in units of one logit, see
            :mod:`.packing`. Defaults to ``SLOT_COST``, which was measured.
    """

    def __init__(self,
                 stages: Sequence[StageWindows],
                 overhead: float = SLOT_COST) -> None:
        self.stages = tuple(stages)
        self.overhead = overhead
        # By grid: the number of every window's map by stage, and all maps
        self._maps: Dict[Grid, Tuple[List[Dict[Window, int]], WindowMaps]] = {}

    def __call__(self, layout: VisibleLayout) -> MaskPlan:
        """Plan the groups of all stages and kinds of windows.

        Raises:
            ValueError: If an image has other windows in its padded batch than
                by itself.
        """
        if not any(stage.windows for stage in self.stages):
            return MaskPlan(layout, [{} for _ in self.stages])
        if layout.grid not in self._maps:
            self._maps[layout.grid] = self._map(layout.grid)
        numbers, maps = self._maps[layout.grid]
        self._check_padding(layout)
        plans = plan_maps(layout, maps, self.overhead)
        return MaskPlan(layout, [{
            window: plans[number]
            for window, number in stage.items()
        } for stage in numbers])

    def _fit(self, grid: Grid) -> List[Dict[Window, Window]]:
        """The windows in use on a grid by the blocks' own, for each stage."""
        return [{
            window:
            window.fit((grid[0] * stage.side, grid[1] * stage.side))
            for window in stage.windows
        } for stage in self.stages]

    def _map(self, grid: Grid) -> Tuple[List[Dict[Window, int]], WindowMaps]:
        """See ``_maps``; windows that fit alike have one map."""
        numbers: List[Dict[Window, int]] = []
        maps: List[Tuple[int, Window]] = []
        for stage, fitted in zip(self.stages, self._fit(grid)):
            used = list(dict.fromkeys(fitted.values()))
            numbers.append({
                own: len(maps) + used.index(window)
                for own, window in fitted.items()
            })
            maps += [(stage.side, window) for window in used]
        return numbers, WindowMaps.make(grid, maps)

    def _check_padding(self, layout: VisibleLayout) -> None:
        """Refuse padding that changes the windows of an image."""
        if layout.valid is None:
            return
        fitted = self._fit(layout.grid)
        rows, cols = layout.valid.any(2).sum(1), layout.valid.any(1).sum(1)
        for grid in sorted(set(zip(rows.tolist(), cols.tolist()))):
            if self._fit(grid) != fitted:
                raise ValueError(
                    f'expected an image of {grid} units to have the same '
                    f'windows in a batch padded to {layout.grid} units as by '
                    'itself, but they shrink to the map of a small image; set '
                    'pad_small_map=True of the backbone, or enlarge the '
                    'smallest images')
