# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Callable, Sequence

from greenmim.ops import MaskPlanner


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

    def __call__(self, samples: Sequence[dict]) -> Any:
        batch = self.collate_fn(samples)
        data_samples = batch['data_samples']
        if not any('mask' in sample for sample in data_samples):
            image = samples[0]['inputs']
            if isinstance(image, (list, tuple)):  # the views of MMSelfSup
                image = image[0]
            plan = self.mask_planner(len(samples), image.shape[-2:])
            data_samples[0].set_metainfo(dict(mask_plan=plan))
        return batch
