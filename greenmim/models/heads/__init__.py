# Copyright (c) greenmim authors. All rights reserved.
from .greenmim_head import GreenMIMHead

__all__ = ['GreenMIMHead']
