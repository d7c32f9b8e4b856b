# Copyright (c) greenmim authors. All rights reserved.
"""From the bytes of an image file to an array on the scale 0 to 255.

``containers`` reads a file as it is stored, whatever its number type;
``levels`` maps its values to [0, 255]; ``decode`` chooses channels.
"""
from .containers import MAX_PIXELS
from .decode import Decoder, decode_image

__all__ = ['MAX_PIXELS', 'Decoder', 'decode_image']
