# Copyright (c) greenmim authors. All rights reserved.
from .loading import LoadImage, UnreadableImageError, decode_image

__all__ = ['LoadImage', 'UnreadableImageError', 'decode_image']
