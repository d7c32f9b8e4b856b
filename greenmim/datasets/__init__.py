# Copyright (c) greenmim authors. All rights reserved.
from greenmim import library_check  # noqa: F401
from .cached_targets import CachedTargets, TargetCache
from .collate import collate
from .fixed_batches import fixed_batches, fixed_samples, folder_with_pipeline
from .held_out import HoldsOut, held_out_part
from .image_archive import ImageArchive
from .image_folder import ImageFolder
from .image_windows import ImageWindows
from .labelled_folder import LabelledFolder
from .padding_collate import padding_collate
from .planning_collate import PlanningCollate
from .sample_photographs import SamplePhotographs
from .samplers import SeededInfiniteSampler, SeededSampler
from .transforms import LoadImage, UnreadableImageError

__all__ = [
    'CachedTargets', 'HoldsOut', 'ImageArchive', 'ImageFolder', 'ImageWindows',
    'LabelledFolder', 'LoadImage', 'PlanningCollate', 'SamplePhotographs',
    'SeededInfiniteSampler', 'SeededSampler', 'TargetCache',
    'UnreadableImageError', 'collate', 'fixed_batches', 'fixed_samples',
    'folder_with_pipeline', 'held_out_part', 'padding_collate'
]
