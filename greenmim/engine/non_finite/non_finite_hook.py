# Copyright (c) greenmim authors. All rights reserved.
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import model_of
from greenmim.registry import HOOKS
from greenmim.weights import read_checkpoint
from ..checkpoints import checkpoint_hook_of, find_latest_whole_checkpoint
from ..merged_groups import merge_checkpoint
from .optim_wrapper import (PRECISIONS, FiniteOptimWrapper, next_precision,
                            precision_of)
from .step_record import get_random_state, record_batch

ADVICE = ('lower the learning rate, clip gradients (optim_wrapper.clip_grad='
          'dict(max_norm=1.)), or train in a higher precision (bf16 or fp32 '
          "instead of fp16; rollback='higher_precision' of NonFiniteHook "
          'does so automatically)')


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Never train on a loss or gradient that is not finite.

    Such a step is skipped and counted, and its batch, masks and random state
    are written to ``non_finite/`` in the work folder, together with the
    weights before the first of them, so that
    :func:`greenmim.engine.non_finite.replay` can compute the loss again.
    After ``patience`` such steps in a row, or as soon as a buffer of the model
    (a running mean) is not finite, weights and optimizer are restored from the
    latest checkpoint, and the run continues with a change:

    - ``rollback='lower_lr'``: the learning rate is multiplied by
      ``lr_factor``.
    - ``rollback='higher_precision'``: an ``AmpOptimWrapper`` computes in
      bfloat16 instead of float16, or float32 instead of bfloat16, also after
      the run has been resumed. In float32 the learning rate is lowered.

    All processes of a distributed run decide together. Which steps count
    with a gradient scaler, says :class:`FiniteOptimWrapper`, which the hook
    puts around the optimizer wrapper of the run.

    Args:
        patience (int): Skipped steps in a row before a rollback.
            Defaults to 5.
        rollback (str): What changes at a rollback. Defaults to ``'lower_lr'``.
        lr_factor (float): Factor of the learning rate. Defaults to 0.5.
        max_rollbacks (int): Rollbacks before the run stops with an error.
            Defaults to 3.
        max_reports (int): Batches that are written. Defaults to 5.

    Raises:
        RuntimeError: While training, if rollbacks do not help, or there is no
            checkpoint yet.
        ValueError: If an argument is out of range.
        TypeError: Before training, if there are several optimizers.
    """

    # Before the checkpoint hook, so that no checkpoint holds a state that is
    # about to be rolled back.
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
        self._random_state: Dict[str, Any] = {}
        self._weights: Optional[str] = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drop the state of a gradient scaler that was switched off."""
        optimizer = checkpoint.get('optimizer', {})
        if optimizer.get('loss_scaler') == {}:
            del optimizer['loss_scaler']

    def before_train(self, runner: Runner) -> None:
        """Put a :class:`FiniteOptimWrapper` around the optimizer wrapper."""
        if not isinstance(runner.optim_wrapper, FiniteOptimWrapper):
            runner.optim_wrapper = FiniteOptimWrapper(runner.optim_wrapper)
        wrapper = runner.optim_wrapper
        if not wrapper.checks_gradients:
            runner.logger.warning(
                f'{type(wrapper.wrapped).__name__} has an update_params of '
                'its own: NonFiniteHook checks only the loss, not the '
                'gradients.')
        name = runner.message_hub.runtime_info.get('raised_precision')
        if name is not None:
            dtype = getattr(torch, name)
            if PRECISIONS.index(dtype) > PRECISIONS.index(
                    precision_of(wrapper)):
                wrapper.set_precision(dtype)
                runner.logger.warning(
                    f'Computing in {name}, to which this run changed after '
                    'steps that were not finite.')

    def before_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        runner.optim_wrapper.problem = None
        self._random_state = get_random_state()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        problem = runner.optim_wrapper.problem
        if problem is None:
            self.in_a_row = 0
            self._weights = None
            return
        self.skipped += 1
        self.in_a_row += 1
        runner.logger.warning(
            f'The {problem} of iteration {runner.iter + 1} is not finite: '
            f'skipped the step ({self.skipped} in total, {self.in_a_row} in '
            'a row).')
        if self.reports < self.max_reports:
            self.reports += 1
            self._write_report(runner, data_batch)
        if self.in_a_row >= self.patience or not _buffers_finite(runner):
            self._roll_back(runner)

    def _write_report(self, runner: Runner, data_batch: Any) -> None:
        folder = Path(runner.work_dir, 'non_finite')
        folder.mkdir(parents=True, exist_ok=True)
        hook = checkpoint_hook_of(runner)
        if self.reports == 1 and hook is not None:
            self._weights = f'weights_iter_{runner.iter + 1}.pth'
            hook.save(runner, f'non_finite/{self._weights}', weights_only=True)
        record = record_batch(model_of(runner), data_batch)
        file = folder / f'iter_{runner.iter + 1}_rank_{get_rank()}.pth'
        torch.save(
            dict(
                iteration=runner.iter + 1,
                problem=runner.optim_wrapper.problem,
                weights=self._weights,
                random_state=self._random_state,
                **record), file)
        runner.logger.warning(f'Wrote the batch to {file} for inspection.')

    def _roll_back(self, runner: Runner) -> None:
        path = find_latest_whole_checkpoint(runner.work_dir)
        self.rollbacks += 1
        if path is None or self.rollbacks > self.max_rollbacks:
            raise RuntimeError(
                f'stopped at iteration {runner.iter + 1}: {self.in_a_row} '
                f'steps in a row were not finite, and ' +
                ('there is no checkpoint to restore' if path is
                 None else f'{self.max_rollbacks} rollbacks did not help') +
                f'; {ADVICE}')
        checkpoint = read_checkpoint(path)
        model_of(runner).load_state_dict(checkpoint['state_dict'])
        wrapper = runner.optim_wrapper
        rates = [group['lr'] for group in wrapper.param_groups]
        merge_checkpoint(wrapper, checkpoint)
        if 'optimizer' in checkpoint:
            wrapper.load_state_dict(checkpoint['optimizer'])
        change, factor = self._change(runner)
        # Schedulers multiply the current rate by factors.
        for group, rate in zip(wrapper.param_groups, rates):
            group['lr'] = rate * factor
        self.in_a_row = 0
        runner.logger.warning(f'Restored the weights of {path} and {change}.')

    def _change(self, runner: Runner) -> Tuple[str, float]:
        """Make the change; return its description and the rate's factor."""
        dtype = None
        if self.rollback == 'higher_precision':
            dtype = next_precision(runner.optim_wrapper)
        if dtype is None:
            return (f'multiplied the learning rate by {self.lr_factor:g}',
                    self.lr_factor)
        runner.optim_wrapper.set_precision(dtype)
        name = str(dtype).replace('torch.', '')
        runner.message_hub.update_info('raised_precision', name)
        return f'changed the precision to {name}', 1.


def _buffers_finite(runner: Runner) -> bool:
    return all(
        bool(buffer.isfinite().all()) for buffer in runner.model.buffers()
        if buffer.is_floating_point())
