# Copyright (c) greenmim authors. All rights reserved.
from .frozen_features import extract_features, knn_accuracy
from .knn import knn_predict
from .labelled_folder import labelled_folder

__all__ = [
    'extract_features', 'knn_accuracy', 'knn_predict', 'labelled_folder'
]
