# Copyright (c) greenmim authors. All rights reserved.
from .hog_target import HOGTarget
from .pixel_target import PixelTarget

__all__ = ['HOGTarget', 'PixelTarget']
