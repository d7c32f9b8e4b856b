# Copyright (c) greenmim authors. All rights reserved.
from .hooks import (ClassCountHook, ImageSizeHook, KNNHook, MaskRatioHook,
                    NonFiniteHook, PlanAheadHook, PreemptionHook, ProgressHook,
                    ProvenanceHook, RunReportHook, SafeCheckpointHook,
                    SeedStepHook, UnreadableImageHook)
from .loops import ResumableEpochLoop

__all__ = [
    'ClassCountHook', 'ImageSizeHook', 'KNNHook', 'MaskRatioHook',
    'NonFiniteHook', 'PlanAheadHook', 'PreemptionHook', 'ProgressHook',
    'ProvenanceHook', 'ResumableEpochLoop', 'RunReportHook',
    'SafeCheckpointHook', 'SeedStepHook', 'UnreadableImageHook'
]
