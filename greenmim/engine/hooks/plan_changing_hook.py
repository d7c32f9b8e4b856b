# Copyright (c) greenmim authors. All rights reserved.
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from greenmim._mmengine import model_of


class PlanChangingHook(Hook):
    """Changes during training what masks are drawn and planned for.

    The change depends on epoch or iteration alone, so that a resumed run
    continues as the uninterrupted one. The masks of such a run are planned in
    the training process, see :class:`PlanAheadHook`.

    Args:
        by_epoch (bool): Whether the run is counted in epochs rather than
            iterations. Defaults to True.

    Raises:
        ValueError: Before training, if the run is counted in the other unit
            or the hook does not suit the model.
    """

    def __init__(self, by_epoch: bool = True) -> None:
        self.by_epoch = by_epoch

    def check(self, model: Any, length: int) -> None:
        """Raise ``ValueError`` if the hook does not suit the model.

        ``length`` counts the epochs or iterations of the run.
        """

    def change(self, model: Any, now: int) -> None:
        """Change the model after ``now`` epochs or iterations."""
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        if self.by_epoch and not isinstance(runner.train_loop,
                                            EpochBasedTrainLoop):
            raise ValueError(
                f'expected by_epoch=False of {type(self).__name__} in a run '
                'that is counted in iterations, got True')
        length = runner.max_epochs if self.by_epoch else runner.max_iters
        self.check(model_of(runner), length)

    def before_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        now = runner.epoch if self.by_epoch else runner.iter
        self.change(model_of(runner), now)
