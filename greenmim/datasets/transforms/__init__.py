# Copyright (c) greenmim authors. All rights reserved.
from .loading import LoadImage, UnreadableImageError

__all__ = ['LoadImage', 'UnreadableImageError']
