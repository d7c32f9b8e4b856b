# Copyright (c) greenmim authors. All rights reserved.
from contextlib import contextmanager
from typing import Any, Iterator

import torch


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluate a model during its training, without changing it.

    In the context the model is in evaluation mode, takes images at their own
    size (see ``MaskedImageModeling.image_size``) and records no gradients.
    Afterwards every module is in its previous mode.

    Args:
        model (nn.Module): The model.
    """
    training = [(module, module.training) for module in model.modules()]
    size = getattr(model, 'image_size', None)
    model.eval()
    if size is not None:
        model.image_size = None
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training:
            module.training = mode
        if size is not None:
            model.image_size = size
