# Copyright (c) greenmim authors. All rights reserved.
"""Frozen features of labelled images, and how well they separate classes."""
import warnings
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
from mmengine.dist import collect_results
from mmengine.model import BaseModel
from torch import Tensor
from torch.utils.data import DataLoader

from .evaluating import evaluating
from .knn import knn_predict


def extract_features(model: BaseModel,
                     loader: DataLoader) -> Optional[Tuple[Tensor, Tensor]]:
    """Average the last feature map of the backbone over each image.

    The model runs in evaluation mode. In a distributed job every process
    takes its share of the images; all have to call this.

    Args:
        model (BaseModel): A model with a data preprocessor and a backbone.
        loader (DataLoader): Labelled images.

    Returns:
        tuple[Tensor] | None: Features (N, C) and labels (N, ) in the order of
        the data set; None in all processes but the first.
    """
    rows: List[Any] = []
    with evaluating(model):
        for batch in loader:
            # The preprocessor of training may mix images and labels.
            labels = [int(sample.gt_label) for sample in batch['data_samples']]
            images = model.data_preprocessor(batch, training=False)['inputs']
            features = model.backbone(images)[-1].float().mean((2, 3))
            # Arrays, since a slice of a tensor is sent with all its storage.
            rows += zip(features.cpu().numpy(), labels)
    num_images = len(loader.dataset)  # type: ignore[arg-type]
    rows = collect_results(rows, num_images, device='cpu')
    if rows is None:
        return None
    return (torch.from_numpy(np.stack([feature for feature, _ in rows])),
            torch.tensor([label for _, label in rows]))


def knn_accuracy(model: BaseModel,
                 bank: DataLoader,
                 queries: DataLoader,
                 k: int = 20,
                 temperature: float = 0.07,
                 linear: bool = False) -> Dict[str, float]:
    """Classify images by weighted k-NN on frozen features.

    Args:
        model (BaseModel): A model with a data preprocessor and a backbone.
        bank (DataLoader): The images whose labels are known, of a data set
            of MMPretrain.
        queries (DataLoader): The images to classify.
        k (int): See :func:`knn_predict`. Defaults to 20.
        temperature (float): See there. Defaults to 0.07.
        linear (bool): Whether to classify by :func:`linear_accuracy`, too, on
            the same features. Defaults to False.

    Returns:
        dict[str, float]: Percentages ``top1`` and, for more than five
        classes, ``top5``: a class without a vote never counts; and
        ``linear``. Empty in all processes of a distributed job but the first.
    """
    known = extract_features(model, bank)
    unknown = extract_features(model, queries)
    if known is None or unknown is None:
        return dict()
    device = next(model.parameters()).device
    num_classes = len(bank.dataset.CLASSES)  # type: ignore[attr-defined]
    scores = knn_predict(known[0].to(device), known[1].to(device),
                         unknown[0].to(device), k, temperature, num_classes)
    scores, classes = scores.cpu().sort(dim=1, descending=True)
    right = (classes == unknown[1][:, None]) & (scores > 0)
    found = {
        f'top{top}': 100 * right[:, :top].any(1).double().mean().item()
        for top in (1, 5) if top == 1 or num_classes > top
    }
    if linear:
        found['linear'] = linear_accuracy(*known, *unknown)
    return found


def linear_accuracy(bank: Tensor,
                    labels: Tensor,
                    queries: Tensor,
                    answers: Tensor,
                    iterations: int = 50) -> float:
    """Classify features by a linear probe that is cheap enough for a log.

    It is scikit-learn's logistic regression on standardised features, of one
    strength (C = 0.01) and few iterations, so that its figures are compared
    within a run; ``compare_with_scratch.py`` chooses the strength.

    Args:
        bank (Tensor): Features of the labelled images, (N, C), on the CPU.
        labels (Tensor): Their classes, (N, ), of two or more classes.
        queries (Tensor): Features to classify, (Q, C).
        answers (Tensor): Their classes, (Q, ).
        iterations (int): Of the solver, at most. Defaults to 50.

    Returns:
        float: The percentage that is classified right.
    """
    # Optional, and slow to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    probe = make_pipeline(StandardScaler(),
                          LogisticRegression(C=0.01, max_iter=iterations))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        probe.fit(bank.numpy(), labels.numpy())
    return 100 * float(probe.score(queries.numpy(), answers.numpy()))
