# Copyright (c) greenmim authors. All rights reserved.
import multiprocessing
from multiprocessing.connection import wait
from typing import Any, Iterator

import torch
from mmengine.runner import EpochBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from greenmim.registry import LOOPS
from .screen import show


def load_batches(loader: DataLoader) -> Iterator[Any]:
    """Iterate a data loader, and name a worker that is lost.

    PyTorch names it too, unless it is killed while it hands over a batch:
    then there is an error of the connection to it alone.

    Args:
        loader (DataLoader): The data loader.

    Yields:
        Any: Its batches.

    Raises:
        RuntimeError: If a worker was killed.
    """
    batches = iter(loader)
    workers = {
        worker.sentinel: worker.pid
        for worker in multiprocessing.active_children()
    }
    try:
        yield from batches
    except (OSError, EOFError) as error:
        lost = ', '.join(
            str(workers[sentinel])  # type: ignore[index]
            for sentinel in wait(list(workers), timeout=5))
        if not lost:
            raise
        raise RuntimeError(f'DataLoader worker (pid(s) {lost}) exited '
                           'unexpectedly') from error


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """An epoch loop that resumes in the middle of an epoch.

    MMEngine restarts the epoch of a checkpoint, so that its first images are
    seen twice and the run is longer than its schedule. This loop continues
    with the next batch. It needs :class:`greenmim.SeededSampler`, whose
    samples do not depend on what was drawn before.

    Raises:
        ValueError: If the images do not fill a batch that is to be complete;
            if the last batch of an epoch has one image, of which
            ``BatchNorm1d`` has no variance; or if a resumed run has another
            number of iterations per epoch, since then the position in the
            epoch and in the schedule is unknown.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not len(self.dataloader):
            raise ValueError(
                'expected as many images as a batch has, '
                f'train_dataloader.batch_size={self.dataloader.batch_size}, '
                f'got {_images(self.dataloader)} with drop_last=True, which '
                'leaves no batch; lower train_dataloader.batch_size, or set '
                'train_dataloader.drop_last=False')

    def run(self) -> torch.nn.Module:
        """Launch training."""
        _check_last_batch(self.dataloader, self.runner.model)
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
            show(
                self.runner.logger,
                f'Continuing epoch {self._epoch + 1} with iteration '
                f'{first + 1} of {len(self.dataloader)}.')
        sampler.start = first * self.dataloader.batch_size
        batches = load_batches(self.dataloader)
        for idx, data_batch in enumerate(batches, first):
            self.run_iter(idx, data_batch)
        sampler.start = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


def batch_size_of(loader: DataLoader) -> int:
    """Images of a batch of a process.

    With a batch sampler of its own, as MMDetection has, ``batch_size`` of a
    loader is None. Sizes for several sources are added up.
    """
    size: Any = loader.batch_size
    if size is None:
        size = getattr(loader.batch_sampler, 'batch_size', 1)
    return size if isinstance(size, int) else sum(size)


def _images(loader: DataLoader) -> str:
    """How many images a process has."""
    total, own = len(loader.dataset), len(loader.sampler)  # type: ignore
    return f'{own} (of {total}) in each process' if own < total else str(total)


def _check_last_batch(loader: DataLoader, model: nn.Module) -> None:
    size = loader.batch_size
    if size is None or loader.drop_last:
        return
    own = len(loader.sampler)  # type: ignore[arg-type]
    if (own - 1) % size == 0 and any(
            isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise ValueError(
            'expected two images or more in every batch, as BatchNorm1d of '
            f'the model needs, got one in the last batch of an epoch: '
            f'{_images(loader)} images with train_dataloader.batch_size='
            f'{size}; choose another batch_size, or leave this batch out by '
            'train_dataloader.drop_last=True')
