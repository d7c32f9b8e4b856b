# Copyright (c) greenmim authors. All rights reserved.
from .cropping import RandomResizedCrop, resize_crop
from .flipping import RandomFlip
from .loading import LoadImage, UnreadableImageError, load_of

__all__ = [
    'LoadImage', 'RandomFlip', 'RandomResizedCrop', 'UnreadableImageError',
    'load_of', 'resize_crop'
]
