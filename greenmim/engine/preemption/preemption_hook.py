# Copyright (c) greenmim authors. All rights reserved.
import signal
from types import FrameType
from typing import Any, Optional, Sequence

import torch
from mmengine.dist import all_reduce, barrier, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from greenmim.registry import HOOKS
from ..checkpoints import checkpoint_hook_of
from .workers import SIGNALS, is_protected, protect


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save a checkpoint and exit when a signal announces the end.

    Schedulers send one some time before they kill a job (Slurm with
    ``--signal=USR1@120``), and Ctrl-C sends SIGINT. The iteration is finished,
    a checkpoint is written and the process exits with :attr:`exit_code`;
    ``--resume`` continues from there. All processes of a distributed run exit
    together, whichever of them got the signal. Data-loading workers ignore
    it, see :func:`leave_signals_to_parent`. A second Ctrl-C exits at once.

    Args:
        signals (Sequence[str]): Names of the signals.
            Defaults to ``('SIGTERM', 'SIGUSR1', 'SIGINT')``.

    Raises:
        RuntimeError: Upon a signal, if there is no :class:`SafeCheckpointHook`
            to save with.
        SystemExit: Upon a signal, after saving.
        KeyboardInterrupt: Upon the second Ctrl-C.
    """

    # After the checkpoint hook, whose file of this iteration suffices.
    priority = 'LOWEST'
    exit_code = 75
    """``EX_TEMPFAIL`` of sysexits.h: try again later."""

    def __init__(self, signals: Sequence[str] = SIGNALS) -> None:
        self.names = list(signals)
        self.signals = [signal.Signals[name] for name in signals]
        self.received: Optional[int] = None

    def before_run(self, runner: Runner) -> None:
        for number in self.signals:
            if number != signal.SIGINT:
                signal.signal(number, self._receive)

    def before_train(self, runner: Runner) -> None:
        """Protect the workers, and catch Ctrl-C from now on.

        Before, Ctrl-C exits at once, since there is nothing to save.
        """
        loader = runner.train_dataloader
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            protect(loader, self.names)
        elif loader.num_workers and not is_protected(loader):
            runner.logger.warning(
                'A signal to all processes of the job would end the '
                'data-loading workers, which this iteration-based run has '
                'started already. Add worker_init_fn=dict(type='
                "'greenmim.leave_signals_to_parent') to train_dataloader.")
        if runner.val_loop is not None:
            protect(runner.val_dataloader, self.names)
        if signal.SIGINT in self.signals:
            signal.signal(signal.SIGINT, self._receive)

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        if number == signal.SIGINT:
            if self.received == signal.SIGINT:
                raise KeyboardInterrupt
            print('\nCtrl-C: saving after this iteration; press it again to '
                  'exit at once.')
        self.received = number

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        received = torch.tensor([self.received or 0])
        if is_distributed():
            all_reduce(received, 'max')
        number = int(received)
        if not number:
            return
        name = f'iter_{runner.iter + 1}.pth'
        hook = checkpoint_hook_of(runner)
        if hook is None:
            raise RuntimeError(
                'expected greenmim.SafeCheckpointHook among the hooks, to '
                'save upon a signal; add it or remove PreemptionHook')
        hook.save(runner, name)
        # One process writes, and launchers kill it some time after another
        # one has exited.
        barrier()
        # First they send SIGTERM, which would change the exit code.
        for other in self.signals:
            signal.signal(other, signal.SIG_IGN)
        runner.logger.warning(
            f'Got {signal.Signals(number).name}: saved {name} and exiting '
            f'with code {self.exit_code}; continue with --resume.')
        raise SystemExit(self.exit_code)
