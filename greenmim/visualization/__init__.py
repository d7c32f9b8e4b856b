# Copyright (c) greenmim authors. All rights reserved.
from .display import ColourDisplay
from .gallery import write_gallery
from .mlflow_backend import MLflowBackend
from .reconstruction import (captions_of, draw_reconstruction,
                             reconstruction_columns)
from .sheet import draw_sheet

__all__ = [
    'ColourDisplay', 'MLflowBackend', 'captions_of', 'draw_reconstruction',
    'draw_sheet', 'reconstruction_columns', 'write_gallery'
]
