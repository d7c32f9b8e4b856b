# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, List, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import model_of
from greenmim.datasets import (fixed_batches, folder_with_pipeline,
                               held_out_part)
from greenmim.datasets.held_out import MOST


class MeasuringHook(Hook):
    """Measures at intervals, on fixed images with a fixed mask.

    The training is bit-identical with and without the hook. The images are
    those that the training data hold out (see
    :class:`greenmim.datasets.ImageFolder`); if they hold out none, they are
    images of the training data; with ``data_root`` those of another folder.
    They are evenly spaced and augmented once. In a distributed run all
    processes measure the same images.

    Args:
        interval (int, optional): Iterations between two measurements.
            Defaults to None: the run is measured ``times`` times, but not
            more often than every 10 iterations.
        num_images (int, optional): Images at most; 0 switches the hook off.
            Defaults to None: 64 held-out images, or else 32.
        batch_size (int): Images per batch. Defaults to 8.
        data_root (str, optional): Folder of images that are not trained on,
            loaded as the training data are. Defaults to None.

    Raises:
        ValueError: If ``interval`` or ``batch_size`` is below 1 or
            ``num_images`` below 0; or if a resumed run began with another
            number of held-out images.
    """

    times = 50

    split = ''
    """Which images are measured, in words: held-out or training images."""

    def __init__(self,
                 interval: Optional[int] = None,
                 num_images: Optional[int] = None,
                 batch_size: int = 8,
                 data_root: Optional[str] = None) -> None:
        if min(batch_size, 1 if interval is None else interval,
               1 if num_images is None else num_images + 1) < 1:
            raise ValueError(
                'expected interval and batch_size of 1 or more and num_images '
                f'of 0 or more, got {interval}, {batch_size} and {num_images}')
        self.interval = interval
        self.num_images = num_images
        self.batch_size = batch_size
        self.data_root = data_root
        self.batches: List[dict] = []
        self.is_held_out = False

    def measure(self, runner: Runner, model: Any, step: int) -> None:
        """Measure after ``step`` iterations."""
        raise NotImplementedError

    def make_batches(self, runner: Runner, dataset: Any,
                     number: int) -> List[dict]:
        """Load ``number`` images of a data set, and mask them."""
        return fixed_batches(dataset, runner.train_dataloader.collate_fn,
                             model_of(runner).mask_planner, number,
                             self.batch_size)

    def before_train(self, runner: Runner) -> None:
        dataset = runner.train_dataloader.dataset
        part = held_out_part(dataset)
        _check_held_out(runner, 0 if part is None else len(part))
        if self.num_images == 0:
            return
        number = self.num_images or (32 if part is None else MOST)
        self.is_held_out = True
        if self.data_root is not None:
            number = self.num_images or 32
            part = folder_with_pipeline(dataset.pipeline.transforms,
                                        self.data_root)
        elif part is None:
            self.is_held_out, part = False, dataset
        self.split = 'held-out' if self.is_held_out else 'training'
        self.batches = self.make_batches(runner, part, number)
        if runner.iter == 0:
            self.measure(runner, model_of(runner), 0)

    def is_due(self, runner: Runner) -> bool:
        """Whether to measure after this iteration."""
        interval = self.interval or max(10, runner.max_iters // self.times)
        return (self.every_n_train_iters(runner, interval)
                or self.is_last_train_iter(runner))

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        if self.batches and self.is_due(runner):
            self.measure(runner, model_of(runner), runner.iter + 1)


def _check_held_out(runner: Runner, number: int) -> None:
    """Refuse to resume a run on images that it held out, or the reverse."""
    hub = runner.message_hub
    before = hub.runtime_info.get('held_out_images', 0)
    if runner.iter and number != before:
        raise ValueError(
            f'expected {before} images held out of training, as when this '
            f'run began, got {number}; set train_dataloader.dataset.held_out='
            f'{before} and the same data')
    hub.update_info('held_out_images', number)
