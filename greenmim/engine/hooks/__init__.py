# Copyright (c) greenmim authors. All rights reserved.
from .plan_ahead_hook import PlanAheadHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .unreadable_image_hook import UnreadableImageHook

__all__ = ['PlanAheadHook', 'SafeCheckpointHook', 'UnreadableImageHook']
