# Copyright (c) greenmim authors. All rights reserved.
from .greenmim_head import GreenMIMHead
from .sum_of_heads import SumOfHeads

__all__ = ['GreenMIMHead', 'SumOfHeads']
