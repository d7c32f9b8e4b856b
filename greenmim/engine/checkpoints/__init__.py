# Copyright (c) greenmim authors. All rights reserved.
"""Writes, finds, checks and reads the checkpoints of a run.

``safe_checkpoint_hook`` writes and loads them, ``atomic_backend`` writes a
file completely or not at all, ``latest`` finds the one to resume, and
``checks`` compares a checkpoint with the model before it is loaded;
``pretrained_init`` loads the weights of an ``init_cfg``.
"""
from .atomic_backend import AtomicLocalBackend
from .latest import find_latest_whole_checkpoint
from .pretrained_init import ReportingInit
from .safe_checkpoint_hook import SafeCheckpointHook, checkpoint_hook_of

__all__ = [
    'AtomicLocalBackend', 'ReportingInit', 'SafeCheckpointHook',
    'checkpoint_hook_of', 'find_latest_whole_checkpoint'
]
