# Copyright (c) greenmim authors. All rights reserved.
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import model_of
from greenmim.datasets import PlanningCollate
from greenmim.registry import HOOKS
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
    """

    def before_train(self, runner: Runner) -> None:
        for hook in runner.hooks:
            if isinstance(hook, PlanChangingHook):
                runner.logger.info('Masks are planned in the training process,'
                                   f' as {type(hook).__name__} changes them.')
                return
        loader = runner.train_dataloader
        loader.collate_fn = PlanningCollate(loader.collate_fn,
                                            model_of(runner).mask_planner)
