# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Optional, Tuple

from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import model_of
from greenmim.datasets import PlanningCollate
from greenmim.registry import HOOKS
from ..loops import batch_size_of
from .plan_changing_hook import PlanChangingHook


@HOOKS.register_module()
class PlanAheadHook(Hook):
    """Draw and plan masks in the data-loading workers.

    MMEngine reads the loss back in every iteration, so that the training
    process cannot plan while the device computes; the workers can. Before
    training the hook passes the model's ``mask_planner`` to the collate
    function of the training data loader.

    An iteration-based loop starts its workers before any hook is called;
    there masks are planned in the training process. The same holds where a
    hook changes mask ratio or image size during the run: the workers are some
    batches ahead and do not know for which iteration a batch is.

    Where groups have fixed numbers and sizes, on a GPU, the masks that these
    are derived from are drawn here, for the size of the pipeline's last crop.
    """

    def before_train(self, runner: Runner) -> None:
        for hook in runner.hooks:
            if isinstance(hook, PlanChangingHook):
                runner.logger.info('Masks are planned in the training process,'
                                   f' as {type(hook).__name__} changes them.')
                return
        loader = runner.train_dataloader
        planner = model_of(runner).mask_planner
        size = _crop_size(getattr(loader, 'dataset', None))
        if size is not None:
            # Once, not in every worker and epoch
            planner.prepare(batch_size_of(loader), size)
        loader.collate_fn = PlanningCollate(loader.collate_fn, planner)


def _crop_size(dataset: Any) -> Optional[Tuple[int, int]]:
    """Height and width of the images, if the last crop tells."""
    transforms = getattr(
        getattr(dataset, 'pipeline', None), 'transforms', None) or ()
    size = None
    for transform in transforms:
        name = type(transform).__name__
        if 'Crop' in name:  # height, width; of a central crop, width, height
            size = getattr(transform, 'crop_size',
                           getattr(transform, 'scale', None))
            if 'Center' in name and isinstance(size, (tuple, list)):
                size = size[::-1]
    if isinstance(size, int):
        return size, size
    if isinstance(size, (tuple, list)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None
