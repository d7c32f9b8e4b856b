# Copyright (c) greenmim authors. All rights reserved.
import torch
from mmengine.runner import EpochBasedTrainLoop

from greenmim.registry import LOOPS


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """An epoch loop that resumes in the middle of an epoch.

    MMEngine restarts the epoch of a checkpoint, so that its first images are
    seen twice and the run is longer than its schedule. This loop continues
    with the next batch. It needs :class:`greenmim.SeededSampler`, whose
    samples do not depend on what was drawn before.

    Raises:
        ValueError: If a resumed run has another number of iterations per
            epoch, since then the position in the epoch and in the schedule
            is unknown.
    """

    def run(self) -> torch.nn.Module:
        """Launch training."""
        info = self.runner.message_hub.runtime_info  # of the checkpoint
        before = info.get('max_iters', 0) // info.get('max_epochs', 1)
        if self._iter and before not in (0, len(self.dataloader)):
            raise ValueError(
                f'expected {before} iterations an epoch, as the run to resume '
                f'has, got {len(self.dataloader)}; keep the data set and the '
                'number of processes times train_dataloader.batch_size, or '
                'start a new run from its weights with --cfg-options '
                'load_from=...')
        return super().run()

    def run_epoch(self) -> None:
        """Iterate the rest of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._iter - self._epoch * len(self.dataloader)
        sampler = self.dataloader.sampler
        if first:
            self.runner.logger.info(
                f'Continuing epoch {self._epoch + 1} with iteration '
                f'{first + 1} of {len(self.dataloader)}.')
        sampler.start = first * self.dataloader.batch_size
        for idx, data_batch in enumerate(self.dataloader, first):
            self.run_iter(idx, data_batch)
        sampler.start = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
