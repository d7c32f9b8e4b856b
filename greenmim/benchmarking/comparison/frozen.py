# Copyright (c) greenmim authors. All rights reserved.
"""Classification of frozen features: k nearest neighbours, linear probe.

Legend: N labelled images in the bank, Q queries, C channels, M classes.
"""
import copy

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from greenmim.engine.launch import build_runner
from greenmim.evaluation import extract_features, knn_predict


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
    loader.dataset.pipeline = cfg.test_dataloader.dataset.pipeline
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

    It minimises the mean cross-entropy and half the squared weights over N,
    the strength that is scikit-learn's default, by L-BFGS to convergence: no
    learning rate to choose, and nothing random.

    Args:
        bank (Tensor): Features of the labelled images, (N, C).
        labels (Tensor): Their classes, (N, ).
        queries (Tensor): Features to classify, (Q, C).
        num_classes (int): M.

    Returns:
        Tensor: Scores of shape (Q, M).
    """
    std, mean = torch.std_mean(bank, dim=0)
    std = std.clamp(min=1e-6)
    bank, queries = (bank - mean) / std, (queries - mean) / std
    weight = bank.new_zeros(num_classes, bank.shape[1], requires_grad=True)
    bias = bank.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias],
                                  max_iter=300,
                                  line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(bank, weight, bias), labels)
        loss = loss + weight.square().sum() / (2 * len(bank))
        loss.backward()
        return loss

    optimizer.step(closure)
    return F.linear(queries, weight, bias).detach()


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of the labels that have the highest score, in percent."""
    return 100 * (scores.argmax(1) == labels).double().mean().item()
