# Copyright (c) greenmim authors. All rights reserved.
from .reconstruction import draw_reconstruction

__all__ = ['draw_reconstruction']
