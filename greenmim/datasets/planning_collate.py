# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
from torch.utils.data import get_worker_info

from greenmim.models.masking import MaskPlanner
from greenmim.models.masking.data_samples import (image_size, plan_masks,
                                                  write_plan)


class PlanningCollate:
    """Collates a batch, and draws and plans its masks in the same worker.

    The plan becomes meta information of the first data sample, which the data
    preprocessor leaves on the CPU, see
    :mod:`greenmim.models.masking.data_samples`.

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
        if self._generator is None:
            self._generator = _worker_generator()
        data_samples = batch['data_samples']
        plan = plan_masks(self.mask_planner, data_samples, len(samples),
                          image_size(batch['inputs']), self._generator)
        write_plan(data_samples, plan)
        return batch


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
