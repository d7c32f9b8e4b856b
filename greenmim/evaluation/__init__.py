# Copyright (c) greenmim authors. All rights reserved.
from .effective_rank import effective_rank, relative_spread
from .evaluating import evaluating
from .frozen_features import extract_features, knn_accuracy, linear_accuracy
from .held_out import held_out_loss
from .knn import knn_predict
from .labelled_folder import labelled_folder
from .verdict import Verdict, judge

__all__ = [
    'Verdict', 'effective_rank', 'evaluating', 'extract_features',
    'held_out_loss', 'judge', 'knn_accuracy', 'knn_predict', 'labelled_folder',
    'linear_accuracy', 'relative_spread'
]
