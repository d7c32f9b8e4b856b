# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, List, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import model_of
from greenmim.datasets import fixed_batches, folder_with_pipeline


class MeasuringHook(Hook):
    """Measures at intervals, on fixed images with a fixed mask.

    The training is bit-identical with and without the hook. The images are
    taken from the training data, evenly spaced and augmented once, unless
    ``data_root`` names a folder of others. In a distributed run all processes
    measure the same images.

    Args:
        interval (int, optional): Iterations between two measurements.
            Defaults to None: the run is measured ``times`` times, but not
            more often than every 10 iterations.
        num_images (int): Images at most. Defaults to 32.
        batch_size (int): Images per batch. Defaults to 8.
        data_root (str, optional): Folder of images that are not trained on,
            loaded as the training data are. Defaults to None.

    Raises:
        ValueError: If ``interval``, ``num_images`` or ``batch_size`` is below
            1.
    """

    times = 50

    def __init__(self,
                 interval: Optional[int] = None,
                 num_images: int = 32,
                 batch_size: int = 8,
                 data_root: Optional[str] = None) -> None:
        if min(num_images, batch_size,
               1 if interval is None else interval) < 1:
            raise ValueError(
                'expected interval, num_images and batch_size of 1 or more, '
                f'got {interval}, {num_images} and {batch_size}')
        self.interval = interval
        self.num_images = num_images
        self.batch_size = batch_size
        self.data_root = data_root
        self.batches: List[dict] = []

    def measure(self, runner: Runner, model: Any, step: int) -> None:
        """Measure after ``step`` iterations."""
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        model = model_of(runner)
        loader = runner.train_dataloader
        dataset = loader.dataset
        if self.data_root is not None:
            dataset = folder_with_pipeline(dataset.pipeline.transforms,
                                           self.data_root)
        self.batches = fixed_batches(dataset, loader.collate_fn,
                                     model.mask_planner, self.num_images,
                                     self.batch_size)
        if runner.iter == 0:
            self.measure(runner, model, 0)

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        interval = self.interval or max(10, runner.max_iters // self.times)
        if (self.every_n_train_iters(runner, interval)
                or self.is_last_train_iter(runner)):
            self.measure(runner, model_of(runner), runner.iter + 1)
