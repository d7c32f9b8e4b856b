# Copyright (c) greenmim authors. All rights reserved.
"""Records inputs and random state of a step, so that it can be repeated."""
import random
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import Tensor

from greenmim.models.masking.data_samples import (image_size, plan_masks,
                                                  read_fields, read_masks,
                                                  read_plan, read_seed)


def get_random_state() -> Dict[str, Any]:
    """The states of all global generators, in tensors and plain types."""
    numpy = np.random.get_state(legacy=False)
    state = dict(
        torch=torch.get_rng_state(),
        numpy=_plain(numpy),
        python=random.getstate())
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Dict[str, Any]) -> None:
    """Restore what :func:`get_random_state` returned."""
    torch.set_rng_state(state['torch'])
    np.random.set_state(state['numpy'])
    random.setstate(state['python'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


def record_batch(model: BaseModel, batch: dict) -> Dict[str, Any]:
    """The inputs of a batch and its samples, with the masks it was given.

    Args:
        model (BaseModel): Draws masks, where neither the pipeline nor the
            data loader has.
        batch (dict): ``inputs`` and ``data_samples`` of the data loader.

    Returns:
        dict: ``inputs`` as they are; ``masks``, a bool tensor of shape
        (B, Gh, Gw), or (1, Gh, Gw) of one mask for all, True = masked, or
        None where there are none or the samples bring them; ``samples``, for
        each its ``metainfo`` and its ``data``.
    """
    samples = batch.get('data_samples') or []
    inputs = batch.get('inputs')
    return dict(
        inputs=inputs,
        masks=_drawn_masks(model, inputs, samples),
        samples=[
            dict(metainfo=_plain(metainfo), data=_plain(data))
            for metainfo, data in map(read_fields, samples)
        ])


def _drawn_masks(model: BaseModel, inputs: Any,
                 samples: List[DataSample]) -> Optional[Tensor]:
    """The masks of the data loader, or those that the seed gives."""
    drawn = read_plan(samples) is not None or read_seed(samples) is not None
    if (not hasattr(model, 'mask_planner') or not drawn
            or read_masks(samples) is not None):
        return None
    size = getattr(model, 'image_size', None) or image_size(inputs)
    plan = plan_masks(model.mask_planner, samples, len(samples), size)
    return ~plan.layout.visible  # padding counts as masked


def replay(model: BaseModel, record: Dict[str, Any]) -> Dict[str, Tensor]:
    """Compute the losses of a recorded step again.

    The model needs the weights of that time and the same mode, precision and
    device.

    Args:
        model (BaseModel): The model, in training mode.
        record (dict): What :func:`record_batch` returned, and
            ``random_state``.

    Returns:
        dict[str, Tensor]: What the model returns in ``mode='loss'``.
    """
    samples = []
    for item in record['samples']:
        sample = DataSample(metainfo=item['metainfo'])
        for name, value in item['data'].items():
            sample.set_field(value, name)
        samples.append(sample)
    if record['masks'] is not None:
        masks = record['masks'].expand(len(samples), -1, -1)
        for sample, mask in zip(samples, masks):
            sample.set_field(mask, 'mask')
    set_random_state(record['random_state'])
    batch = dict(inputs=record['inputs'], data_samples=samples)
    batch = model.data_preprocessor(batch, True)
    return model(**batch, mode='loss')


def _plain(value: Any) -> Any:
    """Copy into tensors and plain types, which load without running code."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items: List[Any] = [_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, (Tensor, str, bytes, bool, int, float, type(None))):
        return value
    return str(value)
