# Copyright (c) greenmim authors. All rights reserved.
from .class_count_hook import ClassCountHook
from .image_size_hook import ImageSizeHook
from .knn_hook import KNNHook
from .learning_hook import LearningHook
from .mask_ratio_hook import MaskRatioHook
from .non_finite_hook import NonFiniteHook
from .plan_ahead_hook import PlanAheadHook
from .preemption_hook import PreemptionHook
from .progress_hook import ProgressHook
from .provenance_hook import ProvenanceHook
from .reconstruction_hook import ReconstructionHook
from .run_report_hook import RunReportHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .seed_step_hook import SeedStepHook
from .unreadable_image_hook import UnreadableImageHook

__all__ = [
    'ClassCountHook', 'ImageSizeHook', 'KNNHook', 'LearningHook',
    'MaskRatioHook', 'NonFiniteHook', 'PlanAheadHook', 'PreemptionHook',
    'ProgressHook', 'ProvenanceHook', 'ReconstructionHook', 'RunReportHook',
    'SafeCheckpointHook', 'SeedStepHook', 'UnreadableImageHook'
]
