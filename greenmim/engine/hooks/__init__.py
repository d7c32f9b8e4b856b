# Copyright (c) greenmim authors. All rights reserved.
from .class_count_hook import ClassCountHook
from .knn_hook import KNNHook
from .plan_ahead_hook import PlanAheadHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .unreadable_image_hook import UnreadableImageHook

__all__ = [
    'ClassCountHook', 'KNNHook', 'PlanAheadHook', 'SafeCheckpointHook',
    'UnreadableImageHook'
]
