# Copyright (c) greenmim authors. All rights reserved.
"""The method: pure functions on tensors and integers."""
from .bias_table import bias_table_window, resize_bias_table
from .fill_units import fill_from_neighbours
from .group_attention import BACKENDS, GroupIndex, group_attention
from .grouping import GroupPlan, Window, plan_groups
from .mask_unit import (VisibleLayout, gather_units, merge_tokens,
                        num_visible_units, patches_of_units, random_mask,
                        unit_grid, units_of_map)
from .merge_order import MERGE_ORDERS, merge_permutation
from .packing import choose_group_size, pack_windows
from .patchify import patchify, unpatchify
from .planner import GroupPlanner, MaskPlan, MaskPlanner, Sampler, StageWindows
from .position import sincos_positions
from .sparse_conv import Halo, depthwise_conv, overlapping_conv

__all__ = [
    'BACKENDS', 'GroupIndex', 'GroupPlan', 'GroupPlanner', 'Halo',
    'MERGE_ORDERS', 'MaskPlan', 'MaskPlanner', 'Sampler', 'StageWindows',
    'VisibleLayout', 'Window', 'bias_table_window', 'choose_group_size',
    'depthwise_conv', 'fill_from_neighbours', 'gather_units',
    'group_attention', 'merge_permutation', 'merge_tokens',
    'num_visible_units', 'overlapping_conv', 'pack_windows',
    'patches_of_units', 'patchify', 'plan_groups', 'random_mask',
    'resize_bias_table', 'sincos_positions', 'unit_grid', 'units_of_map',
    'unpatchify'
]
