# Copyright (c) greenmim authors. All rights reserved.
from .knn import knn_predict

__all__ = ['knn_predict']
