# Copyright (c) greenmim authors. All rights reserved.
"""The method: pure functions on tensors and integers."""
from .fill_units import fill_from_neighbours
from .group_attention import BACKENDS, GroupIndex, group_attention
from .grouping import GroupPlan, Window, plan_groups
from .halo_conv import Halo, depthwise_conv, overlapping_conv
from .mask_unit import (VisibleLayout, gather_units, merge_tokens,
                        num_visible_units, patches_of_units, patchify,
                        random_mask, unit_grid, units_of_map, unpatchify)
from .packing import choose_group_size, pack_windows
from .planning import (GroupPlanner, MaskPlan, MaskPlanner, Sampler,
                       StageWindows)
from .sincos import sincos_positions

__all__ = [
    'BACKENDS', 'GroupIndex', 'GroupPlan', 'GroupPlanner', 'Halo', 'MaskPlan',
    'MaskPlanner', 'Sampler', 'StageWindows', 'VisibleLayout', 'Window',
    'choose_group_size', 'depthwise_conv', 'fill_from_neighbours',
    'gather_units', 'group_attention', 'merge_tokens', 'num_visible_units',
    'overlapping_conv', 'pack_windows', 'patches_of_units', 'patchify',
    'plan_groups', 'random_mask', 'sincos_positions', 'unit_grid',
    'units_of_map', 'unpatchify'
]
