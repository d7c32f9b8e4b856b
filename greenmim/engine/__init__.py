# Copyright (c) greenmim authors. All rights reserved.
from .hooks import (ClassCountHook, KNNHook, PlanAheadHook, SafeCheckpointHook,
                    UnreadableImageHook)

__all__ = [
    'ClassCountHook', 'KNNHook', 'PlanAheadHook', 'SafeCheckpointHook',
    'UnreadableImageHook'
]
