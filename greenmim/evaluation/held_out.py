# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor

from .evaluating import evaluating


def held_out_loss(
        model: Any,
        batches: List[dict]) -> Tuple[float, Tensor, Optional[float]]:
    """Loss and features of fixed images with fixed masks.

    Args:
        model (MaskedImageModeling): The model, which does not change.
        batches (list[dict]): Batches as
            :func:`greenmim.datasets.fixed_batches` makes them.

    Returns:
        tuple: The loss, averaged over the images (float); their features,
        (N, C) in fp32 on the CPU: the encoder's last stage, averaged over
        each image (Tensor); and the loss of a prediction that knows nothing
        of an image and a unit, the mean target of all visible units (float),
        or None where the head has no single target.
    """
    total = 0.
    features: List[Tensor] = []
    rows: List[Tuple[Tensor, Tensor, Any]] = []
    has_target = hasattr(model.head, 'target_key')  # takes a target, too
    with evaluating(model):
        for batch in batches:
            data = model.data_preprocessor(batch, training=False)
            images, plan = model.prepare(**data)
            encoded = model.encode(images, plan)
            pred = model.decode(encoded)
            targets = []
            if has_target:
                targets = [model.head.construct_target(images)]
                rows.append((images, targets[0], plan.layout))
            loss = model.head.loss(pred, images, plan.layout, *targets)
            features.append(encoded.latent.float().mean(1).cpu())
            total += float(loss) * len(images)
        ignorant = _ignorant_loss(model.head, rows) if rows else None
    pooled = torch.cat(features)
    return total / len(pooled), pooled, ignorant


def _ignorant_loss(head: Any, rows: List[Tuple[Tensor, Tensor, Any]]) -> float:
    """The loss of the mean target of visible units, (D,), everywhere."""
    number, mean = 0, torch.zeros(())
    for _, target_BLD, layout in rows:
        visible_BL = layout.visible.flatten(1).to(target_BLD.device)
        visible_BL = visible_BL.expand(target_BLD.shape[:2])
        number += int(visible_BL.sum())
        mean = mean.to(target_BLD) + target_BLD[visible_BL].sum(0)
    total = 0.
    for images, target, layout in rows:
        pred = (mean / number).expand_as(target)
        total += float(head.loss(pred, images, layout, target)) * len(images)
    return total / sum(len(images) for images, _, _ in rows)
