# Copyright (c) greenmim authors. All rights reserved.
"""Plans for all stages of a backbone, made from the mask alone on the CPU.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch

from .capacity import MASKS, choose_capacities
from .grouping import Capacity, GroupPlan, Window, WindowMaps, plan_maps
from .mask_unit import Grid, VisibleLayout
from .packing import GroupCost

# Measured on two CPU cores: 17 to 31, depending on the tensors' sizes
# (tools/analysis_tools/fit_attention_cost.py).
CPU_COST = GroupCost(overhead=20.)
# Kernels compute squares of 64 x 64 logits, and the shapes of their matrices
# are best multiples of 16. The cost of a slot is not measured on a GPU; one
# this small decides between sizes of equally many squares.
GPU_COST = GroupCost(overhead=20., tile=64, step=16)


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

    def groups_on(self, device: torch.device) -> List[Dict[Window, GroupPlan]]:
        """The groups on the device of the tokens, sent in one copy."""
        plans = list({plan: None for groups in self.groups
                      for plan in groups.values()})  # yapf: disable
        if not plans or plans[0].token_of_slot.device == device:
            return self.groups
        moved = dict(zip(plans, GroupPlan.move(plans, device)))
        return [{
            window: moved[plan]
            for window, plan in groups.items()
        } for groups in self.groups]

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
        cost (GroupCost): Cost of a group on the device. Defaults to
            ``CPU_COST``, which was measured.
        fixed (bool): Whether the groups of masks that a sampler draws have
            fixed numbers and sizes, see :meth:`fix_capacity`. Defaults to
            False, the best ones for every mask.
    """

    def __init__(self,
                 stages: Sequence[StageWindows],
                 cost: GroupCost = CPU_COST,
                 fixed: bool = False) -> None:
        self.stages = tuple(stages)
        self.cost = cost
        self.fixed = fixed
        # By grid, masks of a plan and visible units
        self._capacities: Dict[Tuple[Grid, int, int], List[Capacity]] = {}
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
        numbers, maps = self._maps_of(layout.grid)
        self._check_padding(layout)
        capacities = None
        if layout.valid is None:
            capacities = self._capacities.get(
                (layout.grid, layout.num_masks, layout.num_visible))
        plans = plan_maps(layout, maps, self.cost, capacities)
        return MaskPlan(layout, [{
            window: plans[number]
            for window, number in stage.items()
        } for stage in numbers])

    def fix_capacity(self,
                     grid: Grid,
                     num_masks: int,
                     num_visible: int,
                     draw_units: Callable[[int], np.ndarray],
                     most_draws: int = MASKS) -> None:
        """Fix the groups of masks of a kind, once, if ``fixed``.

        A mask that they cannot hold, fewer than one of 10^4, gets more.

        Args:
            grid (tuple[int, int]): The unit grid (Gh, Gw).
            num_masks (int): Masks that a plan covers, M.
            num_visible (int): Visible units of an image, K.
            draw_units (Callable): Draws n masks and returns the numbers of
                their visible units, int (n, K).
            most_draws (int): Masks to draw at most. Defaults to ``MASKS``.
        """
        key = (grid, num_masks, num_visible)
        if (not self.fixed or key in self._capacities
                or not any(stage.windows for stage in self.stages)):
            return
        maps = self._maps_of(grid)[1]
        self._capacities[key] = choose_capacities(
            lambda number: maps.counts(draw_units(number)), num_masks,
            num_visible * int(maps.tokens.max()), self.cost, most_draws)

    def _maps_of(self,
                 grid: Grid) -> Tuple[List[Dict[Window, int]], WindowMaps]:
        if grid not in self._maps:
            self._maps[grid] = self._map(grid)
        return self._maps[grid]

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


def planner_for(device: str, stages: Sequence[StageWindows]) -> GroupPlanner:
    """The planner of a backbone for a kind of device, ``'cpu'`` or ``'cuda'``.

    On a GPU groups fill whole tiles. For windows of up to 8 tokens they also
    have a fixed capacity, which costs about 5 % more tiles than the best
    groups of every mask; for larger windows it would cost 30 %. Neither is
    measured on a GPU.
    """
    if device != 'cuda':
        return GroupPlanner(stages)
    sides = [window.size for stage in stages for window in stage.windows]
    return GroupPlanner(stages, GPU_COST, fixed=max(sides, default=0) <= 8)
