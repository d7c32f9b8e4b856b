# Copyright (c) greenmim authors. All rights reserved.
from .safe_checkpoint_hook import SafeCheckpointHook
from .unreadable_image_hook import UnreadableImageHook

__all__ = ['SafeCheckpointHook', 'UnreadableImageHook']
