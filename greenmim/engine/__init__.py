# Copyright (c) greenmim authors. All rights reserved.
from greenmim import mmcv_check  # noqa: F401
from .bfloat16 import BFloat16OptimWrapper
from .fully_sharded import FullyShardedModel
from .hooks import (ClassCountHook, ImageSizeHook, KNNHook, LearningHook,
                    MaskRatioHook, NonFiniteHook, PlanAheadHook,
                    PreemptionHook, ProgressHook, ProvenanceHook,
                    ReconstructionHook, RunReportHook, SafeCheckpointHook,
                    SeedStepHook, UnreadableImageHook)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import ResumableEpochLoop

__all__ = [
    'BFloat16OptimWrapper', 'ClassCountHook', 'FullyShardedModel',
    'ImageSizeHook', 'KNNHook', 'LayerDecayOptimWrapperConstructor',
    'LearningHook', 'MaskRatioHook', 'NonFiniteHook', 'PlanAheadHook',
    'PreemptionHook', 'ProgressHook', 'ProvenanceHook', 'ReconstructionHook',
    'ResumableEpochLoop', 'RunReportHook', 'SafeCheckpointHook',
    'SeedStepHook', 'UnreadableImageHook'
]
