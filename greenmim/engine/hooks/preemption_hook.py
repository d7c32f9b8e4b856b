# Copyright (c) greenmim authors. All rights reserved.
import signal
from types import FrameType
from typing import Optional, Sequence

import torch
from mmengine.dist import all_reduce, barrier, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim.registry import HOOKS
from ..worker_signals import leave_to_parent
from .safe_checkpoint_hook import SafeCheckpointHook

SIGNALS = ('SIGTERM', 'SIGUSR1', 'SIGINT')


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save and leave when a signal announces the end.

    Schedulers send one some time before they kill a job (Slurm with
    ``--signal=USR1@120``), and so does Ctrl-C (SIGINT). The iteration is
    finished, a checkpoint is written and the process exits with
    :attr:`exit_code`; ``--resume`` goes on from there. All processes of a
    distributed run leave together, whichever of them got the signal.
    Data-loading workers do not heed it. A second Ctrl-C stops at once.

    Args:
        signals (Sequence[str]): Names of the signals.
            Defaults to ``('SIGTERM', 'SIGUSR1', 'SIGINT')``.

    Raises:
        RuntimeError: Upon a signal, if there is no :class:`SafeCheckpointHook`
            to save with.
        SystemExit: Upon a signal, after saving.
        KeyboardInterrupt: Upon the second Ctrl-C.
    """

    # After the checkpoint hook, whose file of this iteration is enough.
    priority = 'LOWEST'
    exit_code = 75
    """``EX_TEMPFAIL`` of sysexits.h: try again later."""

    def __init__(self, signals: Sequence[str] = SIGNALS) -> None:
        self.signals = [signal.Signals[name] for name in signals]
        self.received: Optional[int] = None
        # Here, since iteration-based loops start workers before any event.
        leave_to_parent(frozenset(self.signals))

    def before_run(self, runner: Runner) -> None:
        for number in self.signals:
            if number != signal.SIGINT:
                signal.signal(number, self._receive)

    def before_train(self, runner: Runner) -> None:
        """Until now Ctrl-C has stopped at once: there is nothing to save."""
        if signal.SIGINT in self.signals:
            signal.signal(signal.SIGINT, self._receive)

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        if number == signal.SIGINT:
            if self.received == signal.SIGINT:
                raise KeyboardInterrupt
            print('\nCtrl-C: saving after this iteration; once more to stop '
                  'at once.')
        self.received = number

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: object = None,
                         outputs: object = None) -> None:
        received = torch.tensor([self.received or 0])
        if is_distributed():
            all_reduce(received, 'max')
        number = int(received)
        if not number:
            return
        name = f'iter_{runner.iter + 1}.pth'
        hooks = [
            hook for hook in runner.hooks
            if isinstance(hook, SafeCheckpointHook)
        ]
        if not hooks:
            raise RuntimeError(
                'expected greenmim.SafeCheckpointHook among the hooks, to '
                'save upon a signal; add it or remove PreemptionHook')
        hooks[0].save(runner, name)
        # One process writes, and launchers kill it some time after they have
        # seen another one leave.
        barrier()
        # At first they send SIGTERM, which would change the exit code.
        for other in self.signals:
            signal.signal(other, signal.SIG_IGN)
        runner.logger.warning(
            f'Got {signal.Signals(number).name}: saved {name} and leaving '
            f'with exit code {self.exit_code}; go on with --resume.')
        raise SystemExit(self.exit_code)
