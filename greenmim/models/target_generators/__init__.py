# Copyright (c) greenmim authors. All rights reserved.
from .pixel_target import PixelTarget

__all__ = ['PixelTarget']
