# Copyright (c) greenmim authors. All rights reserved.
import logging
import os.path as osp
from collections import deque
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader, Runner

from greenmim._mmengine import (checkpoint_to_load, is_resuming,
                                set_checkpoint_to_load,
                                skip_weight_initialization)
from greenmim.registry import HOOKS
from greenmim.weights import UnsafeCheckpoint, read_checkpoint, trusting
from ..accumulation import accumulated_gradients, set_gradients
from ..fully_sharded import cut_state, gather_state, is_sharded
from ..merged_groups import merge_checkpoint
from .atomic_backend import AtomicLocalBackend  # noqa: F401, registers
from .checks import (check_model, report_weights, schedule_of,
                     warn_of_schedule, warn_of_settings)
from .latest import find_latest_whole_checkpoint

WEIGHTS = ('state_dict', 'ema_state_dict', 'gradients')
OMITTED = object()

# MMEngine chooses the reader of a checkpoint by a prefix of its path.
SAFE = 'greenmim.safe://'
TRUSTED = 'greenmim.trusted://'


@CheckpointLoader.register_scheme(prefixes=SAFE)
def load_from_safe(filename: str, map_location: Any) -> Any:
    """Read a local file, and run no code that it holds."""
    path = filename[len(SAFE):]
    try:
        return read_checkpoint(path, map_location)
    except UnsafeCheckpoint as error:
        raise UnsafeCheckpoint(
            f'{error}, or "--cfg-options default_hooks.checkpoint.'
            f'trusted={path}" with another launcher') from error


@CheckpointLoader.register_scheme(prefixes=TRUSTED)
def load_from_trusted(filename: str, map_location: Any) -> Any:
    """Read a local file that may run code."""
    with trusting():
        return read_checkpoint(filename[len(TRUSTED):], map_location)


def to_plain(value: Any, name: str) -> Any:
    """Copy ``value`` into tensors and Python's plain types.

    Sets and deques become lists, NumPy arrays nested lists, and a log history
    a tensor. Anything else is omitted from its container with a warning,
    which says by ``name`` where it was.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    # Exact types: pickle stores a subclass (an enumeration, say) by its name.
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, HistoryBuffer):
        history = np.stack(value.data).astype(np.float64)
        # As bits, since a device that cannot hold float64 (MPS) may load it.
        return torch.from_numpy(history).view(torch.int64)
    if isinstance(value, dict):
        items = ((to_plain(key, name), to_plain(item, f'{name}.{key}'))
                 for key, item in value.items())
        return {key: item for key, item in items if item is not OMITTED}
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        plain = (to_plain(item, name) for item in value)
        sequence = tuple if isinstance(value, tuple) else list
        return sequence(item for item in plain if item is not OMITTED)
    print_log(
        f'The checkpoint is saved without {name}: a {type(value).__name__} '
        'is not a plain type, so it could not be loaded safely.',
        logger='current',
        level=logging.WARNING)
    return OMITTED


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """Checkpoints that hold nothing but tensors and plain types.

    MMEngine pickles log histories and NumPy scalars into its checkpoints,
    which ``torch.load`` refuses since PyTorch 2.6. This hook writes plain
    types instead and restores the histories upon loading, so that a run
    resumes with its smoothed losses and no class is ever allow-listed.

    Files are written completely or not at all, and ``--resume`` skips damaged
    ones. Between two updates with gradient accumulation, they hold the
    gradients so far. A checkpoint of another model is refused. Where the
    config and the checkpoint differ in a setting of the optimizer or in the
    length of the run or its batches, the log says so, and which is used.

    The file to load or resume is read by :func:`greenmim.weights.
    read_checkpoint`, MMEngine's own files too. One that could run code is
    refused, unless ``trusted`` names it.

    Args:
        trusted: The one checkpoint file that may run code while it is loaded.
            Defaults to None.
        **kwargs: Arguments of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        TypeError: If an argument is unknown.
        ValueError: If a file to resume from could run code and is not
            trusted, or is of another model; if none of the weights of a file
            to load is one of the model's.
    """

    def __init__(self,
                 *args: Any,
                 trusted: Optional[str] = None,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args:  # The parent would pass them to a save that fails.
            raise TypeError('SafeCheckpointHook got an unexpected keyword '
                            f'argument {next(iter(self.args))!r}')
        self.trusted = trusted
        self._gathered: dict = {}
        self._accumulated: dict = {}
        if self.file_client_args is None and self.backend_args is None and (
                self.out_dir is None or '://' not in str(self.out_dir)):
            self.backend_args: Optional[dict] = dict(backend='greenmim.atomic')

    def before_run(self, runner: Runner) -> None:
        """Find the file to load or resume, and choose how it is read."""
        if is_sharded(runner):
            # The wrapper has done it; MMEngine's cannot broadcast slices.
            skip_weight_initialization(runner)
        path = checkpoint_to_load(runner)
        if path is None and is_resuming(runner):
            path = find_latest_whole_checkpoint(runner.work_dir)
            if path is None:
                runner.logger.warning(
                    f'Nothing to resume: {runner.work_dir} has no checkpoint. '
                    'The run starts from the beginning.')
                return
            set_checkpoint_to_load(runner, path)
        if path is None or not osp.isfile(osp.expanduser(path)):
            return  # none, or a remote one
        path = osp.expanduser(path)
        trusted = self.trusted is not None and osp.samefile(
            path, osp.expanduser(self.trusted))
        set_checkpoint_to_load(runner, (TRUSTED if trusted else SAFE) + path)

    def save(self,
             runner: Runner,
             filename: str,
             weights_only: bool = False) -> None:
        """Write a checkpoint of this iteration; all processes must call it.

        ``weights_only`` omits the states of optimizer and schedulers.
        """
        self._gather(runner)
        if weights_only:
            self._gathered.pop('optimizer', None)
            self._gathered.pop('gradients', None)
        runner.save_checkpoint(
            self.out_dir or runner.work_dir,
            filename,
            save_optimizer=not weights_only,
            save_param_scheduler=not weights_only,
            by_epoch=False,
            backend_args=self.backend_args)
        if not weights_only and is_main_process():
            path = osp.join(self.out_dir or runner.work_dir, filename)
            Path(runner.work_dir, 'last_checkpoint').write_text(path)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if self._accumulated and is_resuming(runner):
            set_gradients(runner, self._accumulated)
            runner.logger.info('Resumed with the gradients that the '
                               'iterations since the last update have '
                               'accumulated: none is lost.')
        self._accumulated = {}
        info = runner.message_hub.runtime_info
        last = info.get('last_ckpt')
        if last and osp.realpath(osp.dirname(last)) != osp.realpath(
                str(self.out_dir)):
            # Resumed from another folder, whose files are not to be removed.
            self.keep_ckpt_ids: deque = deque([], max(self.max_keep_ckpts, 0))
            for name in [name for name in info if name.startswith('best_')]:
                del info[name]
            if self.save_best and len(self.key_indicators) > 1:
                self.best_ckpt_path_dict = dict.fromkeys(self.key_indicators)
            else:
                self.best_ckpt_path: Optional[str] = None

    def _save_checkpoint_with_step(self, runner: Runner, step: int,
                                   meta: dict) -> None:
        self._gather(runner)
        super()._save_checkpoint_with_step(runner, step, meta)

    def _gather(self, runner: Runner) -> None:
        self._gathered = gather_state(runner) if is_sharded(runner) else {}
        gradients = accumulated_gradients(runner)
        if gradients:
            self._gathered['gradients'] = gradients

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Convert all but the weights to plain types."""
        checkpoint.update(self._gathered)
        checkpoint['meta']['schedule'] = schedule_of(runner)
        weights = {
            key: checkpoint.pop(key)
            for key in WEIGHTS if key in checkpoint
        }
        plain = to_plain(checkpoint, 'checkpoint')
        checkpoint.clear()
        checkpoint.update(plain, **weights)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint and restore its log histories."""
        # Runner.resume would run this text, which old files hold, as Python.
        checkpoint.get('meta', {}).pop('config', None)
        if is_resuming(runner):
            merge_checkpoint(runner.optim_wrapper, checkpoint)
            check_model(runner, checkpoint)
            warn_of_settings(runner, checkpoint)
            warn_of_schedule(runner, checkpoint)
        report_weights(runner, checkpoint)
        if is_sharded(runner):
            cut_state(runner, checkpoint)
        self._accumulated = checkpoint.pop('gradients', {})
        message_hub = checkpoint.get('message_hub')
        if not isinstance(message_hub, dict):
            return
        for key, value in message_hub['log_scalars'].items():
            if isinstance(value, torch.Tensor):
                history = value.cpu().view(torch.float64).numpy()
                message_hub['log_scalars'][key] = HistoryBuffer(*history)


def checkpoint_hook_of(runner: Runner) -> Optional[SafeCheckpointHook]:
    """The :class:`SafeCheckpointHook` of a run; None if it has none.

    Args:
        runner (Runner): The run.
    """
    hooks = (h for h in runner.hooks if isinstance(h, SafeCheckpointHook))
    return next(hooks, None)
