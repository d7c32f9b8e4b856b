# Copyright (c) greenmim authors. All rights reserved.
from .display import ColourDisplay, add_display_arguments
from .gallery import write_pictures
from .mlflow_backend import MLflowBackend
from .reconstruction import captions_of, reconstruction_columns
from .sheet import draw_sheet

__all__ = [
    'ColourDisplay', 'MLflowBackend', 'add_display_arguments', 'captions_of',
    'draw_sheet', 'reconstruction_columns', 'write_pictures'
]
