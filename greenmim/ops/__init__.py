# Copyright (c) greenmim authors. All rights reserved.
"""The method: pure functions on tensors and integers."""
from .group_attention import GroupIndex, group_attention
from .grouping import GroupPlan, Window, plan_groups
from .mask_unit import (VisibleLayout, gather_units, merge_tokens,
                        num_visible_units, patches_of_units, random_mask,
                        unit_grid)
from .packing import choose_group_size, pack_windows

__all__ = [
    'GroupIndex', 'GroupPlan', 'VisibleLayout', 'Window', 'choose_group_size',
    'gather_units', 'group_attention', 'merge_tokens', 'num_visible_units',
    'pack_windows', 'patches_of_units', 'plan_groups', 'random_mask',
    'unit_grid'
]
