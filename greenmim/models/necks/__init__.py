# Copyright (c) greenmim authors. All rights reserved.
from .greenmim_neck import GreenMIMNeck

__all__ = ['GreenMIMNeck']
