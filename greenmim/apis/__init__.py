# Copyright (c) greenmim authors. All rights reserved.
"""What the command, Python and the tools share."""
from greenmim import library_check  # noqa: F401
from .backbones import Recipe, recipes
from .exporting import Exported, export
from .finetuning import finetune
from .image_features import Features, features
from .loading import Preprocess, load, preprocess
from .pretraining import pretrain
from .runs import Run, read_run

__all__ = [
    'Exported', 'Features', 'Preprocess', 'Recipe', 'Run', 'export',
    'features', 'finetune', 'load', 'preprocess', 'pretrain', 'read_run',
    'recipes'
]
