# Copyright (c) greenmim authors. All rights reserved.
"""Weighted k-nearest-neighbour classification of frozen features.

Letters of shapes: N labelled images in the bank, Q queries, C channels,
M classes.
"""
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities held at a time: 128 MiB in fp32.
MAX_SIMILARITIES = 2**25


def knn_predict(bank: Tensor,
                labels: Tensor,
                queries: Tensor,
                k: int = 20,
                temperature: float = 0.07,
                num_classes: Optional[int] = None) -> Tensor:
    r"""Classify queries by the labels of their nearest neighbours.

    The ``k`` labelled images with the highest cosine similarity vote for
    their class, with weight :math:`\exp(s / T)` for similarity s and
    temperature T (Wu et al., CVPR 2018, section 3.4). A query's votes are
    divided by their sum, which keeps the ranking and cannot overflow.

    Args:
        bank (Tensor): Features of the labelled images, (N, C). Features need
            not be normalised.
        labels (Tensor): Their classes, integers of shape (N, ).
        queries (Tensor): Features to classify, (Q, C).
        k (int): Neighbours that vote. Defaults to 20.
        temperature (float): T; a smaller value gives the nearest neighbours
            more weight. Defaults to 0.07.
        num_classes (int, optional): M. Defaults to the largest label plus
            one.

    Returns:
        Tensor: Each class's share of the votes, (Q, M) in fp32, or in fp64
        for features in fp64.

    Raises:
        ValueError: If shapes disagree, a feature is not finite, a label is
            out of range, or ``k`` or ``temperature`` is.
    """
    if bank.ndim != 2 or queries.ndim != 2 or bank.size(1) != queries.size(1):
        raise ValueError(
            'expected features of shapes (N, C) and (Q, C), got '
            f'{tuple(bank.shape)} in the bank and {tuple(queries.shape)} '
            'queries; take both from the same model')
    if labels.shape != bank.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f'expected {len(bank)} integers as labels, one for each feature '
            f'in the bank, got {tuple(labels.shape)} of {labels.dtype}')
    if not 1 <= k <= len(bank):
        raise ValueError(
            f'expected k from 1 to the {len(bank)} labelled images, got {k}')
    if not temperature > 0:
        raise ValueError(f'expected a temperature above 0, got {temperature}')
    labels = labels.long()
    if num_classes is None:
        num_classes = int(labels.max()) + 1
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f'expected labels from 0 to num_classes - 1 = {num_classes - 1}, '
            f'got {int(labels.min())} to {int(labels.max())}')
    if not bank.isfinite().all() or not queries.isfinite().all():
        raise ValueError('expected finite features, got NaN or infinity; '
                         'check the checkpoint, or compute them in fp32')

    dtype = torch.promote_types(bank.dtype, torch.float32)
    bank = F.normalize(bank.to(dtype), dim=1)
    queries = F.normalize(queries.to(dtype), dim=1)
    scores = queries.new_zeros(len(queries), num_classes)
    chunk = max(1, MAX_SIMILARITIES // len(bank))
    for query, score in zip(queries.split(chunk), scores.split(chunk)):
        similarity, neighbours = (query @ bank.T).topk(k, dim=1)
        votes = (similarity / temperature).softmax(dim=1)
        score.scatter_add_(1, labels[neighbours], votes)
    return scores
