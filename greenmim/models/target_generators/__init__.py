# Copyright (c) greenmim authors. All rights reserved.
from .base import Target, check_predictions
from .ema_target import EMATarget
from .fill_units import best_width, fill_from_neighbours, naive_fillings
from .hog_target import HOGTarget
from .low_frequency_target import LowFrequencyTarget
from .pixel_target import PixelTarget
from .teacher_target import TeacherTarget
from .teachers import TimmTeacher, TransformersTeacher

__all__ = [
    'EMATarget', 'HOGTarget', 'LowFrequencyTarget', 'PixelTarget', 'Target',
    'TeacherTarget', 'TimmTeacher', 'TransformersTeacher', 'best_width',
    'check_predictions', 'fill_from_neighbours', 'naive_fillings'
]
