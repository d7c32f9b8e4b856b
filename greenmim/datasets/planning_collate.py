# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
from mmpretrain.structures import DataSample
from torch.utils.data import get_worker_info

from greenmim.models.masking import MaskPlanner


class PlanningCollate:
    """Collates a batch, and draws and plans its masks in the same worker.

    The plan travels as meta information ``mask_plan`` of the first data
    sample, which the data preprocessor leaves on the CPU. Where the pipeline
    made masks of its own, nothing is added.

    Args:
        collate_fn (Callable): The collate function of the data loader.
        mask_planner (MaskPlanner): Draws and plans.
    """

    def __init__(self, collate_fn: Callable[[Sequence[dict]], dict],
                 mask_planner: MaskPlanner) -> None:
        self.collate_fn = collate_fn
        self.mask_planner = mask_planner
        self._generator: Optional[torch.Generator] = None

    def __call__(self, samples: Sequence[dict]) -> Any:
        batch = self.collate_fn(samples)
        data_samples = batch['data_samples']
        if not any('mask' in sample for sample in data_samples):
            plan = self.mask_planner(
                len(samples),
                image_size(samples, batch),
                generator=self._generator_of(data_samples[0]),
                own_sizes=data_samples[0].get('own_sizes'))
            data_samples[0].set_metainfo(dict(mask_plan=plan))
        return batch

    def _generator_of(self, sample: DataSample) -> Optional[torch.Generator]:
        """Of the sample's own seed, else of this worker."""
        if 'mask_seed' in sample:
            return torch.Generator().manual_seed(sample.mask_seed)
        if self._generator is None:
            self._generator = _worker_generator()
        return self._generator


def image_size(samples: Sequence[dict], batch: dict) -> Sequence[int]:
    """Height and width of the images of a batch, which may be padded."""
    if 'own_sizes' in batch['data_samples'][0]:
        return batch['inputs'].shape[-2:]
    image = samples[0]['inputs']
    if isinstance(image, (list, tuple)):  # the views of MMSelfSup
        image = image[0]
    return image.shape[-2:]


def _worker_generator() -> Optional[torch.Generator]:
    """A generator of this worker's own; None in the training process.

    MMEngine seeds the workers alike in every epoch, unless they persist. The
    seed of the worker is new every epoch, and torch's differs by rank.
    """
    worker = get_worker_info()
    if worker is None:
        return None
    # Mixed, since both seeds count workers up: their sums would coincide.
    seeds = np.random.SeedSequence([worker.seed, torch.initial_seed()])
    seed = int(seeds.generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)
