# Copyright (c) greenmim authors. All rights reserved.
from .loading import LoadImage, UnreadableImageError, load_of

__all__ = ['LoadImage', 'UnreadableImageError', 'load_of']
