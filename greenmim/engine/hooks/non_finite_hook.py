# Copyright (c) greenmim authors. All rights reserved.
from functools import wraps
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from mmengine.dist import all_reduce, get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from greenmim.registry import HOOKS
from ..latest_checkpoint import find_latest_whole_checkpoint
from ..precision import ORDER, next_precision, precision_of, set_precision
from ..step_record import get_random_state, record_batch
from .safe_checkpoint_hook import SafeCheckpointHook

ADVICE = ('lower the learning rate, clip gradients (optim_wrapper.clip_grad='
          'dict(max_norm=1.)), or train in a higher precision (bf16 or fp32 '
          "instead of fp16; rollback='higher_precision' of NonFiniteHook "
          'changes to it by itself)')


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Never train on a loss or gradient that is not finite.

    Such a step is left out, counted, and its batch, masks and random state
    are written to ``non_finite/`` of the work folder, with the weights at the
    first of them, so that :func:`greenmim.engine.step_record.replay` computes
    the loss again. After ``patience`` such steps in a row, or as soon as a
    buffer of the model (a running mean) is not finite, weights and optimizer
    go back to the latest checkpoint, and something changes from there on:

    - ``rollback='lower_lr'``: the learning rate is multiplied by
      ``lr_factor``.
    - ``rollback='higher_precision'``: an ``AmpOptimWrapper`` computes in
      bfloat16 instead of float16, or float32 instead of bfloat16, also after
      the run has been resumed. In float32 the learning rate is lowered.

    All processes of a distributed run decide together.

    A gradient scaler (float16) leaves steps out by itself, which is how it
    finds its scale. They count once it cannot lower the scale any more, or
    has lowered it to 1, where it is no longer the cause.

    Args:
        patience (int): Steps in a row that are left out before going back.
            Defaults to 5.
        rollback (str): What changes. Defaults to ``'lower_lr'``.
        lr_factor (float): Factor of the learning rate. Defaults to 0.5.
        max_rollbacks (int): How often the run goes back before it stops with
            an error. Defaults to 3.
        max_reports (int): Batches that are written. Defaults to 5.

    Raises:
        RuntimeError: While training, if going back does not help, or there is
            no checkpoint yet.
        ValueError: If an argument is out of range.
        TypeError: If there are several optimizers.
    """

    # Before the checkpoint hook, so that a checkpoint never holds what is
    # about to be undone.
    priority = 'NORMAL'

    def __init__(self,
                 patience: int = 5,
                 rollback: str = 'lower_lr',
                 lr_factor: float = 0.5,
                 max_rollbacks: int = 3,
                 max_reports: int = 5) -> None:
        if patience < 1 or not 0 < lr_factor <= 1:
            raise ValueError('expected patience >= 1 and 0 < lr_factor <= 1, '
                             f'got {patience} and {lr_factor}')
        if rollback not in ('lower_lr', 'higher_precision'):
            raise ValueError("expected rollback to be 'lower_lr' or "
                             f"'higher_precision', got {rollback!r}")
        self.patience = patience
        self.rollback = rollback
        self.lr_factor = lr_factor
        self.max_rollbacks = max_rollbacks
        self.max_reports = max_reports
        self.skipped = self.in_a_row = self.rollbacks = self.reports = 0
        self._problem: Optional[str] = None
        self._random_state: Dict[str, Any] = {}
        self._weights: Optional[str] = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drop the state of a gradient scaler that was switched off."""
        optimizer = checkpoint.get('optimizer', {})
        if optimizer.get('loss_scaler') == {}:
            del optimizer['loss_scaler']

    def before_train(self, runner: Runner) -> None:
        """Let the optimizer wrapper ask first."""
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):
            raise TypeError('expected a single OptimWrapper, got '
                            f'{type(wrapper).__name__}')
        wrapper.update_params = self._guard(wrapper, wrapper.update_params)
        wrapper.step = self._guard_step(wrapper, wrapper.step)
        name = runner.message_hub.runtime_info.get('raised_precision')
        if name is not None:
            dtype = getattr(torch, name)
            if ORDER.index(dtype) > ORDER.index(precision_of(wrapper)):
                set_precision(wrapper, dtype)
                runner.logger.warning(
                    f'Computing in {name}, to which this run changed when '
                    'steps were not finite.')

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
            scaler = getattr(wrapper, 'loss_scaler', None)
            if scaler is not None and not scaler.is_enabled():
                scaler = None
            finite = _gradients_finite(wrapper)
            if not finite and (scaler is None
                               or getattr(wrapper, '_scale_update_param', None)
                               or scaler.get_scale() <= 1):
                self._problem = 'gradient'
            if finite or scaler is not None:
                step(**kwargs)

        return guarded

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        self._problem = None
        self._random_state = get_random_state()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        if self._problem is None:
            self.in_a_row = 0
            self._weights = None
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
        folder = Path(runner.work_dir, 'non_finite')
        folder.mkdir(parents=True, exist_ok=True)
        if self.reports == 1:
            self._save_weights(runner)
        record = record_batch(_bare(runner.model), data_batch)
        file = folder / f'iter_{runner.iter + 1}_rank_{get_rank()}.pth'
        torch.save(
            dict(
                iteration=runner.iter + 1,
                problem=self._problem,
                weights=self._weights,
                random_state=self._random_state,
                **record), file)
        runner.logger.warning(f'Written: {file}, the batch for inspection.')

    def _save_weights(self, runner: Runner) -> None:
        """Keep what the first step that was left out computed with."""
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook):
                self._weights = f'weights_iter_{runner.iter + 1}.pth'
                hook.save(
                    runner, f'non_finite/{self._weights}', weights_only=True)
                return

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
        _bare(runner.model).load_state_dict(checkpoint['state_dict'])
        wrapper = runner.optim_wrapper
        rates = [group['lr'] for group in wrapper.param_groups]
        if 'optimizer' in checkpoint:
            wrapper.load_state_dict(checkpoint['optimizer'])
        change, factor = self._change(runner)
        # Schedulers step from the present rate by factors.
        for group, rate in zip(wrapper.param_groups, rates):
            group['lr'] = rate * factor
        self.in_a_row = 0
        runner.logger.warning(
            f'Went back to the weights of {path} and {change}.')

    def _change(self, runner: Runner) -> Tuple[str, float]:
        """What is otherwise from now on, and the learning rate's factor."""
        dtype = None
        if self.rollback == 'higher_precision':
            dtype = next_precision(runner.optim_wrapper)
        if dtype is None:
            return (f'multiplied the learning rate by {self.lr_factor:g}',
                    self.lr_factor)
        set_precision(runner.optim_wrapper, dtype)
        name = str(dtype).replace('torch.', '')
        runner.message_hub.update_info('raised_precision', name)
        return f'compute in {name} from now on', 1.


def _bare(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model


def _gradients_finite(wrapper: OptimWrapper) -> bool:
    grads = [
        param.grad for group in wrapper.param_groups
        for param in group['params'] if param.grad is not None
    ]
    return bool(torch.stack(torch._foreach_norm(grads)).isfinite().all())


def _buffers_finite(runner: Runner) -> bool:
    buffers: List[Tensor] = [
        buffer for buffer in runner.model.buffers()
        if buffer.is_floating_point()
    ]
    return all(bool(buffer.isfinite().all()) for buffer in buffers)
