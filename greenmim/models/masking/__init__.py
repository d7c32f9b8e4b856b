# Copyright (c) greenmim authors. All rights reserved.
"""Masks: what draws them, and what plans them for a batch."""
from .block_mask import BlockMask
from .given_mask import GivenMask
from .planner import MaskPlanner
from .random_mask import RandomMask, num_visible_units, random_mask
from .uniform_mask import UniformMask

__all__ = [
    'BlockMask', 'GivenMask', 'MaskPlanner', 'RandomMask', 'UniformMask',
    'num_visible_units', 'random_mask'
]
