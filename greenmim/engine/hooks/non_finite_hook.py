# Copyright (c) greenmim authors. All rights reserved.
from functools import wraps
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import torch
from mmengine.dist import all_reduce, get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from greenmim.registry import HOOKS
from ..latest_checkpoint import find_latest_whole_checkpoint

ADVICE = ('lower the learning rate, clip gradients (optim_wrapper.clip_grad='
          'dict(max_norm=1.)), or train in bf16 or fp32 instead of fp16')


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Never train on a loss or gradient that is not finite.

    Such a step is left out, counted, and its batch, masks and random state
    are written to ``non_finite/`` of the work folder. After ``patience`` such
    steps in a row, or as soon as a buffer of the model (a running mean) is
    not finite, weights and optimizer go back to the latest checkpoint and
    the learning rate is multiplied by ``lr_factor`` from there on. All
    processes of a distributed run decide together.

    With a gradient scaler (fp16) the gradients are its business, which skips
    and lowers the scale by itself.

    Args:
        patience (int): Steps in a row that are left out before going back.
            Defaults to 5.
        lr_factor (float): Factor of the learning rate. Defaults to 0.5.
        max_rollbacks (int): How often the run goes back before it stops with
            an error. Defaults to 3.
        max_reports (int): Batches that are written. Defaults to 5.
    """

    # Before the checkpoint hook, so that a checkpoint never holds what is
    # about to be undone.
    priority = 'NORMAL'

    def __init__(self,
                 patience: int = 5,
                 lr_factor: float = 0.5,
                 max_rollbacks: int = 3,
                 max_reports: int = 5) -> None:
        if patience < 1 or not 0 < lr_factor <= 1:
            raise ValueError('expected patience >= 1 and 0 < lr_factor <= 1, '
                             f'got {patience} and {lr_factor}')
        self.patience = patience
        self.lr_factor = lr_factor
        self.max_rollbacks = max_rollbacks
        self.max_reports = max_reports
        self.skipped = self.in_a_row = self.rollbacks = self.reports = 0
        self._problem: Optional[str] = None
        self._random_state: Optional[Tensor] = None

    def before_train(self, runner: Runner) -> None:
        """Let the optimizer wrapper ask first."""
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):
            raise TypeError('expected a single OptimWrapper, got '
                            f'{type(wrapper).__name__}')
        wrapper.update_params = self._guard(wrapper, wrapper.update_params)
        if getattr(wrapper, 'loss_scaler', None) is None:
            wrapper.step = self._guard_step(wrapper, wrapper.step)

    def _guard(self, wrapper: OptimWrapper,
               update_params: Callable) -> Callable:

        def guarded(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            finite = loss.detach().isfinite().all()
            if is_distributed():
                finite = finite.int()
                all_reduce(finite, 'min')
            if finite:
                update_params(loss, *args, **kwargs)
            else:
                self._problem = 'loss'
                wrapper.zero_grad()

        return guarded

    def _guard_step(self, wrapper: OptimWrapper, step: Callable) -> Callable:

        @wraps(step)  # with the mark that schedulers look for
        def guarded(**kwargs: Any) -> None:
            grads = [
                param.grad for group in wrapper.param_groups
                for param in group['params'] if param.grad is not None
            ]
            if torch.stack(torch._foreach_norm(grads)).isfinite().all():
                step(**kwargs)
            else:
                self._problem = 'gradient'

        return guarded

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        self._problem = None
        self._random_state = torch.get_rng_state()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        if self._problem is None:
            self.in_a_row = 0
            return
        self.skipped += 1
        self.in_a_row += 1
        runner.logger.warning(
            f'The {self._problem} of iteration {runner.iter + 1} is not '
            f'finite: left it out ({self.skipped} in all, {self.in_a_row} in '
            'a row).')
        if self.reports < self.max_reports:
            self.reports += 1
            self._write_report(runner, data_batch)
        if self.in_a_row >= self.patience or not _buffers_finite(runner):
            self._go_back(runner)

    def _write_report(self, runner: Runner, data_batch: Any) -> None:
        samples = (data_batch or {}).get('data_samples') or []
        report: Dict[str, Any] = dict(
            iteration=runner.iter + 1,
            problem=self._problem,
            random_state=self._random_state,
            inputs=(data_batch or {}).get('inputs'),
            masks=[_mask_of(sample) for sample in samples],
            paths=[str(sample.get('img_path', '')) for sample in samples])
        folder = Path(runner.work_dir, 'non_finite')
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f'iter_{runner.iter + 1}_rank_{get_rank()}.pth'
        torch.save(report, file)
        runner.logger.warning(f'Written: {file}, the batch for inspection.')

    def _go_back(self, runner: Runner) -> None:
        path = find_latest_whole_checkpoint(runner.work_dir)
        self.rollbacks += 1
        if path is None or self.rollbacks > self.max_rollbacks:
            raise RuntimeError(
                f'stopped at iteration {runner.iter + 1}: {self.in_a_row} '
                f'steps in a row were not finite, and ' +
                ('there is no checkpoint to go back to' if path is None else
                 f'going back {self.max_rollbacks} times did not help') +
                f'; {ADVICE}')
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        model.load_state_dict(checkpoint['state_dict'])
        wrapper = runner.optim_wrapper
        rates = [group['lr'] for group in wrapper.param_groups]
        if 'optimizer' in checkpoint:
            wrapper.load_state_dict(checkpoint['optimizer'])
        # Schedulers step from the present rate by factors.
        for group, rate in zip(wrapper.param_groups, rates):
            group['lr'] = rate * self.lr_factor
        self.in_a_row = 0
        runner.logger.warning(
            f'Went back to the weights of {path} and multiplied the learning '
            f'rate by {self.lr_factor:g}.')


def _mask_of(sample: Any) -> Any:
    plan = sample.get('mask_plan')
    if plan is not None:
        return ~plan.layout.visible
    return sample.get('mask_seed', sample.get('mask'))


def _buffers_finite(runner: Runner) -> bool:
    buffers: List[Tensor] = [
        buffer for buffer in runner.model.buffers()
        if buffer.is_floating_point()
    ]
    return all(bool(buffer.isfinite().all()) for buffer in buffers)
