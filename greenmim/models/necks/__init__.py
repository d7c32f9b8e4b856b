# Copyright (c) greenmim authors. All rights reserved.
from .greenmim_neck import GreenMIMNeck
from .linear_neck import LinearNeck

__all__ = ['GreenMIMNeck', 'LinearNeck']
