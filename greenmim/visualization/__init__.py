# Copyright (c) greenmim authors. All rights reserved.
from .display import ColourDisplay, add_display_arguments
from .gallery import draw_sheet, write_pictures
from .learning import (draw_learning, learning_columns, learning_sentence,
                       squared_errors)
from .mlflow_backend import MLflowBackend
from .reconstruction import captions_of, error_remarks, reconstruction_columns

__all__ = [
    'ColourDisplay', 'MLflowBackend', 'add_display_arguments', 'captions_of',
    'draw_learning', 'draw_sheet', 'error_remarks', 'learning_columns',
    'learning_sentence', 'reconstruction_columns', 'squared_errors',
    'write_pictures'
]
