# Copyright (c) greenmim authors. All rights reserved.
from .class_count_hook import ClassCountHook
from .knn_hook import KNNHook
from .non_finite_hook import NonFiniteHook
from .plan_ahead_hook import PlanAheadHook
from .preemption_hook import PreemptionHook
from .run_report_hook import RunReportHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .seed_step_hook import SeedStepHook
from .unreadable_image_hook import UnreadableImageHook

__all__ = [
    'ClassCountHook', 'KNNHook', 'NonFiniteHook', 'PlanAheadHook',
    'PreemptionHook', 'RunReportHook', 'SafeCheckpointHook', 'SeedStepHook',
    'UnreadableImageHook'
]
