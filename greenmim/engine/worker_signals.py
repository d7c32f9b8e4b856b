# Copyright (c) greenmim authors. All rights reserved.
"""Data-loading workers that leave the scheduler's signals to their parent.

Slurm signals every process of a job. PyTorch's workers die of SIGTERM, and
the training process stops because of that before it has saved.
"""
import os
import signal
import threading
from functools import lru_cache, partial
from typing import FrozenSet


@lru_cache(maxsize=None)
def leave_to_parent(signals: FrozenSet[signal.Signals]) -> None:
    """Let processes forked from now on take no signal but their parent's.

    Upon SIGTERM of the parent they end, which is how it ends them; all other
    ``signals`` come to nothing. Calls with the same ``signals`` act once.
    Without effect where Python cannot wait for signals, as on macOS.

    Args:
        signals (frozenset[signal.Signals]): The signals.
    """
    if hasattr(signal, 'sigwaitinfo'):
        os.register_at_fork(after_in_child=partial(_leave, signals))


def _leave(signals: FrozenSet[signal.Signals]) -> None:
    # Blocked and waited for, as a handler is not told who sent a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    threading.Thread(target=_obey, args=(signals, ), daemon=True).start()


def _obey(signals: FrozenSet[signal.Signals]) -> None:
    while True:
        info = signal.sigwaitinfo(signals)
        if (info.si_signo == signal.SIGTERM and info.si_pid == os.getppid()):
            os._exit(0)
