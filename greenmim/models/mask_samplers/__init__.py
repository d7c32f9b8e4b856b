# Copyright (c) greenmim authors. All rights reserved.
from .random_mask import RandomMask

__all__ = ['RandomMask']
