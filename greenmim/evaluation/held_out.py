# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, List, Tuple

import torch
from torch import Tensor

from .evaluating import evaluating


def held_out_loss(model: Any, batches: List[dict]) -> Tuple[float, Tensor]:
    """Loss and features of fixed images with fixed masks.

    Args:
        model (MaskedImageModeling): The model, which does not change.
        batches (list[dict]): Batches as
            :func:`greenmim.datasets.fixed_batches` makes them.

    Returns:
        tuple[float, Tensor]: The loss, averaged over the images, and their
        features, (N, C) in fp32 on the CPU: the encoder's last stage,
        averaged over each image.
    """
    total = 0.
    features: List[Tensor] = []
    with evaluating(model):
        for batch in batches:
            data = model.data_preprocessor(batch, training=False)
            images, plan = model.prepare(**data)
            encoded = model.encode(images, plan)
            pred = model.decode(encoded)
            loss = model.head.loss(pred, images, plan.layout)
            features.append(encoded.latent.float().mean(1).cpu())
            total += float(loss) * len(images)
    pooled = torch.cat(features)
    return total / len(pooled), pooled
