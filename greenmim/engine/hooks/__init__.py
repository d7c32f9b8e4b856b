# Copyright (c) greenmim authors. All rights reserved.
"""Hooks that belong to none of the folders beside this one."""
from .class_count_hook import ClassCountHook
from .image_size_hook import ImageSizeHook
from .linked_settings_hook import LinkedSettingsHook
from .mask_ratio_hook import MaskRatioHook
from .plan_ahead_hook import PlanAheadHook
from .plan_changing_hook import PlanChangingHook
from .progress_hook import ProgressHook
from .provenance_hook import ProvenanceHook
from .run_folder_hook import RunFolderHook, check_run_folder
from .seed_step_hook import SeedStepHook
from .unreadable_image_hook import UnreadableImageHook

__all__ = [
    'ClassCountHook', 'ImageSizeHook', 'LinkedSettingsHook', 'MaskRatioHook',
    'PlanAheadHook', 'PlanChangingHook', 'ProgressHook', 'ProvenanceHook',
    'RunFolderHook', 'SeedStepHook', 'UnreadableImageHook', 'check_run_folder'
]
