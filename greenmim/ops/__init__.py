# Copyright (c) greenmim authors. All rights reserved.
"""The method: pure functions on tensors and integers.

It needs PyTorch and NumPy alone. The letters of shapes, here and in the
models, whose tensors carry them as a suffix (``x_BKTC``):

=======  =====================================================================
B        images of a batch
M        masks: 1 that all images share, or B
Gh, Gw   rows and columns of mask units, the unit grid
L        units of an image, Gh * Gw
K        visible units of an image
T        tokens of a unit in a stage, side * side
C        channels of a token or an image, O output channels
D        numbers that describe a unit as a whole, such as its pixels
H, W     height and width of images in pixels, of maps in tokens
S        sequences with one plan: B for a shared mask, 1 for a mask per image
N        tokens of a sequence, all that a plan covers: M * K * T
G, g     groups of a plan, slots of a group
P        slots of a plan, G * g
h, d     attention heads, channels of a head
w, s     side and shift of an attention window in tokens
R        entries of a table of relative position biases, (2 * w - 1)**2
p        padding of a convolution
J        tokens of a unit in all stages and kinds of windows together
=======  =====================================================================
"""
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
