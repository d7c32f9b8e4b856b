# Copyright (c) greenmim authors. All rights reserved.
"""Classification of frozen features: k nearest neighbours, linear probe.

Legend: N labelled images in the bank, Q queries, C channels, M classes.
"""
import copy

import torch
from mmengine.config import Config
from torch import Tensor

from greenmim.engine.launch import build_runner
from greenmim.evaluation import extract_features, knn_predict

# C of scikit-learn, from strong regularisation to weak.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.)


def evaluate_frozen(cfg: Config) -> dict:
    """Accuracy of k-NN and of a linear probe on a classifier's features.

    Both see the images that the config fine-tunes on, prepared as those that
    it tests on.

    Args:
        cfg (Config): Config of a fine-tuning; its head is not used.
    """
    runner = build_runner(cfg)
    runner.model.init_weights()
    loader = copy.deepcopy(cfg.test_dataloader)
    loader.dataset = copy.deepcopy(cfg.train_dataloader.dataset)
    loader.dataset.update(
        pipeline=cfg.test_dataloader.dataset.pipeline, test_mode=True)
    known = extract_features(runner.model, runner.build_dataloader(loader))
    asked = extract_features(runner.model,
                             runner.build_dataloader(cfg.test_dataloader))
    assert known is not None and asked is not None  # in the first process
    (bank, labels), (queries, answers) = known, asked
    num_classes = cfg.model.head.num_classes
    neighbours = knn_predict(
        bank, labels, queries, min(20, len(bank)), num_classes=num_classes)
    linear = linear_probe(bank, labels, queries, num_classes)
    return dict(
        knn=accuracy(neighbours, answers), linear=accuracy(linear, answers))


def linear_probe(bank: Tensor, labels: Tensor, queries: Tensor,
                 num_classes: int) -> Tensor:
    """Scores of a logistic regression on standardised features.

    Its regularisation is the one of ``STRENGTHS`` that classifies best in a
    cross-validation on the labelled images: few labels need a stronger one
    than many. scikit-learn solves it to convergence.

    Args:
        bank (Tensor): Features of the labelled images, (N, C).
        labels (Tensor): Their classes, (N, ).
        queries (Tensor): Features to classify, (Q, C).
        num_classes (int): M.

    Returns:
        Tensor: Scores of shape (Q, M).

    Raises:
        ValueError: If a class has fewer than 2 labelled images.
    """
    # Optional, and slow to import.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fewest = int(labels.bincount(minlength=num_classes).min())
    if fewest < 2:
        raise ValueError('expected at least 2 labelled images of every class '
                         'for the cross-validation of the linear probe, got '
                         f'{fewest}; label more')
    probe = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        dict(logisticregression__C=STRENGTHS),
        cv=min(5, fewest))
    probe.fit(bank.numpy(), labels.numpy())
    return torch.from_numpy(probe.predict_log_proba(queries.numpy()))


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of the labels that have the highest score, in percent."""
    return 100 * (scores.argmax(1) == labels).double().mean().item()
