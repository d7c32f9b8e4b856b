# Copyright (c) greenmim authors. All rights reserved.
"""Saves a checkpoint and exits when a scheduler signals the end of a job.

``preemption_hook`` receives the signals in the training process, ``workers``
keeps them from the data-loading workers.
"""
from .preemption_hook import PreemptionHook
from .workers import leave_signals_to_parent

__all__ = ['PreemptionHook', 'leave_signals_to_parent']
