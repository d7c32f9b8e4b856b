# Copyright (c) greenmim authors. All rights reserved.
from .fill_units import fill_from_neighbours
from .hog_target import HOGTarget
from .low_frequency_target import LowFrequencyTarget
from .pixel_target import PixelTarget
from .teacher_target import TeacherTarget

__all__ = [
    'HOGTarget', 'LowFrequencyTarget', 'PixelTarget', 'TeacherTarget',
    'fill_from_neighbours'
]
