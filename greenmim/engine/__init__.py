# Copyright (c) greenmim authors. All rights reserved.
from .hooks import (ClassCountHook, KNNHook, PlanAheadHook, PreemptionHook,
                    SafeCheckpointHook, SeedStepHook, UnreadableImageHook)
from .loops import ResumableEpochLoop

__all__ = [
    'ClassCountHook', 'KNNHook', 'PlanAheadHook', 'PreemptionHook',
    'ResumableEpochLoop', 'SafeCheckpointHook', 'SeedStepHook',
    'UnreadableImageHook'
]
