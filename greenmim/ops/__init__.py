# Copyright (c) greenmim authors. All rights reserved.
"""The method: pure functions on tensors and integers."""
from .group_attention import BACKENDS, GroupIndex, group_attention
from .grouping import GroupPlan, Window, plan_groups
from .halo_conv import Halo, depthwise_conv, overlapping_conv
from .mask_unit import (VisibleLayout, gather_units, merge_tokens,
                        patches_of_units, patchify, unit_grid, units_of_map,
                        unpatchify)
from .packing import choose_group_size, pack_windows
from .planning import GroupPlanner, MaskPlan, StageWindows
from .sincos import sincos_positions

__all__ = [
    'BACKENDS', 'GroupIndex', 'GroupPlan', 'GroupPlanner', 'Halo', 'MaskPlan',
    'StageWindows', 'VisibleLayout', 'Window', 'choose_group_size',
    'depthwise_conv', 'gather_units', 'group_attention', 'merge_tokens',
    'overlapping_conv', 'pack_windows', 'patches_of_units', 'patchify',
    'plan_groups', 'sincos_positions', 'unit_grid', 'units_of_map',
    'unpatchify'
]
