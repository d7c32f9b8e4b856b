# Copyright (c) greenmim authors. All rights reserved.
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from greenmim.datasets import PlanningCollate
from greenmim.registry import HOOKS
from .plan_changing_hook import PlanChangingHook


@HOOKS.register_module()
class PlanAheadHook(Hook):
    """Draw and plan masks in the data-loading workers.

    MMEngine reads the loss back in every iteration, so that the training
    process cannot hide planning behind the device's work; workers can. Before
    training the hook hands the model's ``mask_planner`` to the collate
    function of the training data loader.

    An iteration-based loop has started its workers before any hook is called;
    there masks are still planned in the training process. So they are where
    a hook changes mask ratio or image size in the course of the run, of which
    workers, some batches ahead, do not know.
    """

    def before_train(self, runner: Runner) -> None:
        for hook in runner.hooks:
            if isinstance(hook, PlanChangingHook):
                runner.logger.info('Masks are planned in the training process,'
                                   f' as {type(hook).__name__} changes them.')
                return
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        loader = runner.train_dataloader
        loader.collate_fn = PlanningCollate(loader.collate_fn,
                                            model.mask_planner)
