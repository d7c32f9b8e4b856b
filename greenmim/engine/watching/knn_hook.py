# Copyright (c) greenmim authors. All rights reserved.
import time
from importlib.util import find_spec
from typing import Any, Dict

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import model_of
from greenmim.datasets.transforms import load_of
from greenmim.evaluation import knn_accuracy, labelled_folder
from greenmim.registry import HOOKS
from ..fully_sharded import call_gathered


@HOOKS.register_module()
class KNNHook(Hook):
    """Measure by k-NN and a linear probe what labels the features tell.

    The features are the averages of the last feature map, see
    :func:`greenmim.evaluation.knn_accuracy`. They are evaluated before
    training, which gives a baseline and shows mistakes at once, then at
    intervals and at the end. The hook does not affect the training. The
    accuracy is logged, and written to the visualizer as ``knn/top1``,
    ``knn/top5`` and ``linear/top1``. The linear probe (scikit-learn's, if
    that is installed, see :func:`greenmim.evaluation.linear_accuracy`) uses
    the features that k-NN needs anyway; the log says how long both took.
    Images are loaded as those of the training, with its range of values and
    bands; those that cannot be read are left out and listed.

    Args:
        data_root (str): Folder of labelled images, see
            :func:`greenmim.evaluation.labelled_folder`.
        interval (int): Epochs between two evaluations, or iterations where
            ``by_epoch`` is False. Defaults to 10.
        by_epoch (bool): Whether ``interval`` counts epochs. Defaults to True.
        size (int): Side of the images in pixels. Defaults to 224.
        channels (int): Channels of the images, where the training does not
            load them by ``LoadImage``. Defaults to 3.
        batch_size (int): Images per batch and process. Defaults to 64.
        num_workers (int): Data-loading workers. Defaults to 4.
        k (int): Neighbours that vote. Defaults to 20.
        temperature (float): Temperature of the weights of the votes.
            Defaults to 0.07.
        linear (bool): Whether to train the linear probe. Defaults to True.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    def __init__(self,
                 data_root: str,
                 interval: int = 10,
                 by_epoch: bool = True,
                 size: int = 224,
                 channels: int = 3,
                 batch_size: int = 64,
                 num_workers: int = 4,
                 k: int = 20,
                 temperature: float = 0.07,
                 linear: bool = True) -> None:
        if interval < 1:
            raise ValueError(
                f'expected an interval of 1 or more, got {interval}')
        self.data: Dict[str, Any] = dict(
            root=data_root, size=size, channels=channels)
        self.loading = dict(
            batch_size=batch_size,
            num_workers=num_workers,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            worker_init_fn=dict(type='greenmim.leave_signals_to_parent'))
        self.interval = interval
        self.by_epoch = by_epoch
        self.k = k
        self.temperature = temperature
        self.linear = linear and find_spec('sklearn') is not None

    def before_train(self, runner: Runner) -> None:
        pipeline = getattr(runner.train_dataloader.dataset, 'pipeline', None)
        load = load_of(pipeline.transforms) if pipeline else None
        # MMEngine draws a seed from NumPy's global generator unless it is
        # given one. These loaders have no use for it.
        self.bank, self.queries = (
            runner.build_dataloader(
                dict(self.loading, dataset=dataset), seed=0)
            for dataset in labelled_folder(load=load, **self.data))
        self._evaluate(runner, runner.epoch if self.by_epoch else runner.iter)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and (self.every_n_epochs(runner, self.interval)
                              or self.is_last_train_epoch(runner)):
            self._evaluate(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        if not self.by_epoch and (self.every_n_train_iters(
                runner, self.interval) or self.is_last_train_iter(runner)):
            self._evaluate(runner, runner.iter + 1)

    def _evaluate(self, runner: Runner, step: int) -> None:
        """Evaluate after ``step`` epochs or iterations."""
        model = model_of(runner)
        # A data loader draws the seed of its workers from the generator that
        # draws the masks.
        start = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            accuracy = call_gathered(
                runner.model,
                lambda: knn_accuracy(model, self.bank, self.queries, self.k,
                                     self.temperature, self.linear))
        seconds = time.perf_counter() - start
        if not accuracy:
            return
        linear = accuracy.pop('linear', None)
        figures = {f'knn/{name}': value for name, value in accuracy.items()}
        if linear is not None:
            figures['linear/top1'] = linear
        text = ', '.join(f'{n}: {value:.2f}' for n, value in figures.items())
        unit = 'epochs' if self.by_epoch else 'iterations'
        runner.logger.info(
            f'k-NN after {step} {unit}: {text} ({seconds:.1f} s)')
        runner.visualizer.add_scalars(figures, step=step)
