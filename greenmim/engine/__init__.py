# Copyright (c) greenmim authors. All rights reserved.
from .hooks import SafeCheckpointHook, UnreadableImageHook

__all__ = ['SafeCheckpointHook', 'UnreadableImageHook']
