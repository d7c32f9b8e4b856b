# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, List, Tuple

import torch
from torch import Tensor, nn

from .evaluating import evaluating


def held_out_loss(model: Any, batches: List[dict]) -> Tuple[float, Tensor]:
    """Loss and features of fixed images with fixed masks.

    Args:
        model (MaskedImageModeling): The model; it is left as it was.
        batches (list[dict]): Batches as
            :func:`greenmim.datasets.fixed_batches` makes them.

    Returns:
        tuple[float, Tensor]: The loss, averaged over the images, and their
        features, (N, C) in fp32 on the CPU: what the encoder hands to the
        decoder, of the last stage, averaged over the image.
    """
    total = 0.
    features: List[Tensor] = []

    def keep(neck: nn.Module, inputs: tuple) -> None:
        latent = inputs[0]
        last = latent[-1] if isinstance(latent, (list, tuple)) else latent
        features.append(last.float().flatten(1, -2).mean(1).cpu())

    handle = model.neck.register_forward_pre_hook(keep)
    try:
        with evaluating(model):
            for batch in batches:
                data = model.data_preprocessor(batch, training=False)
                loss = model(**data, mode='loss')['loss']
                total += float(loss) * len(features[-1])
    finally:
        handle.remove()
    pooled = torch.cat(features)
    return total / len(pooled), pooled
