# Copyright (c) greenmim authors. All rights reserved.
"""Frozen features of labelled images, and how well they separate classes."""
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
                 temperature: float = 0.07) -> Dict[str, float]:
    """Classify images by weighted k-NN on frozen features.

    Args:
        model (BaseModel): A model with a data preprocessor and a backbone.
        bank (DataLoader): The images whose labels are known, of a data set
            of MMPretrain.
        queries (DataLoader): The images to classify.
        k (int): See :func:`knn_predict`. Defaults to 20.
        temperature (float): See there. Defaults to 0.07.

    Returns:
        dict[str, float]: Percentages ``top1`` and, for more than five
        classes, ``top5``: a class without a vote never counts. Empty in all
        processes of a distributed job but the first.
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
    return {
        f'top{top}': 100 * right[:, :top].any(1).double().mean().item()
        for top in (1, 5) if top == 1 or num_classes > top
    }
