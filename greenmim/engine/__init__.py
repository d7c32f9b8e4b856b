# Copyright (c) greenmim authors. All rights reserved.
from .hooks import (ClassCountHook, KNNHook, NonFiniteHook, PlanAheadHook,
                    PreemptionHook, RunReportHook, SafeCheckpointHook,
                    SeedStepHook, UnreadableImageHook)
from .loops import ResumableEpochLoop

__all__ = [
    'ClassCountHook', 'KNNHook', 'NonFiniteHook', 'PlanAheadHook',
    'PreemptionHook', 'ResumableEpochLoop', 'RunReportHook',
    'SafeCheckpointHook', 'SeedStepHook', 'UnreadableImageHook'
]
