# Copyright (c) greenmim authors. All rights reserved.
"""Hooks that measure during training whether the model is learning.

By the loss and features of fixed images (``learning_hook``), by pictures of
them (``learning_picture_hook``, ``reconstruction_hook``), and by labels
(``knn_hook``).
"""
from .knn_hook import KNNHook
from .learning_hook import LearningHook
from .learning_picture_hook import LearningPictureHook
from .measuring_hook import MeasuringHook
from .reconstruction_hook import ReconstructionHook

__all__ = [
    'KNNHook', 'LearningHook', 'LearningPictureHook', 'MeasuringHook',
    'ReconstructionHook'
]
