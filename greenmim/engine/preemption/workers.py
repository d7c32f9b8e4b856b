# Copyright (c) greenmim authors. All rights reserved.
"""Data-loading workers that leave the scheduler's signals to their parent.

Slurm signals every process of a job. PyTorch's workers die of SIGTERM, which
stops the training process before it has saved.
"""
import os
import random
import signal
import threading
from functools import partial
from typing import Callable, FrozenSet, Optional, Sequence

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader

from greenmim.datasets.seeding import mix_seeds
from greenmim.registry import FUNCTIONS

SIGNALS = ('SIGTERM', 'SIGUSR1', 'SIGINT')


@FUNCTIONS.register_module()
def leave_signals_to_parent(
        worker_id: int,
        signals: Sequence[str] = SIGNALS,
        then: Optional[Callable[[int], None]] = None) -> None:
    """The ``worker_init_fn`` of a data loader: ignore the job's signals.

    On SIGTERM from its parent a worker ends, which is how PyTorch ends it;
    all other ``signals`` are ignored. Without effect where Python cannot wait
    for signals, as on macOS.

    :class:`PreemptionHook` sets it. The data loader of an iteration-based run
    starts its workers before any hook is called, so that its config has to
    name it: ``worker_init_fn=dict(type='greenmim.leave_signals_to_parent')``.

    Args:
        worker_id (int): The index of the worker.
        signals (Sequence[str]): Names of the signals.
            Defaults to ``('SIGTERM', 'SIGUSR1', 'SIGINT')``.
        then (Callable, optional): Called with the index afterwards, to seed
            the generators. Defaults to None: they are seeded by run, process
            and worker.
    """
    if hasattr(signal, 'sigwaitinfo'):
        numbers = frozenset(signal.Signals[name] for name in signals)
        # Blocked and waited for, as a handler does not learn who sent it.
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        threading.Thread(target=_obey, args=(numbers, ), daemon=True).start()
    if then is None:
        seed = mix_seeds(torch.initial_seed(), get_rank())
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
    else:
        then(worker_id)


def protect(loader: DataLoader, signals: Sequence[str]) -> None:
    """Let the workers that a data loader starts later ignore signals.

    Its ``worker_init_fn`` is called afterwards.
    """
    if loader.num_workers and not is_protected(loader):
        loader.worker_init_fn = partial(
            leave_signals_to_parent,
            signals=signals,
            then=loader.worker_init_fn)


def is_protected(loader: DataLoader) -> bool:
    """Whether the workers of a data loader ignore signals."""
    function = loader.worker_init_fn
    return getattr(function, 'func', function) is leave_signals_to_parent


def _obey(signals: FrozenSet[signal.Signals]) -> None:
    while True:
        info = signal.sigwaitinfo(signals)
        if info.si_signo == signal.SIGTERM and info.si_pid == os.getppid():
            os._exit(0)
