# Copyright (c) greenmim authors. All rights reserved.
from .weight_init import PatchXavierInit

__all__ = ['PatchXavierInit']
