# Copyright (c) greenmim authors. All rights reserved.
from .block_mask import BlockMask
from .given_mask import GivenMask
from .random_mask import RandomMask
from .uniform_mask import UniformMask

__all__ = ['BlockMask', 'GivenMask', 'RandomMask', 'UniformMask']
