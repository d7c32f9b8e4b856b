# Copyright (c) greenmim authors. All rights reserved.
from .hooks import PlanAheadHook, SafeCheckpointHook, UnreadableImageHook

__all__ = ['PlanAheadHook', 'SafeCheckpointHook', 'UnreadableImageHook']
