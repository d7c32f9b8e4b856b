# Copyright (c) greenmim authors. All rights reserved.
"""Skips training steps that are not finite, and records them.

``optim_wrapper`` skips them, ``non_finite_hook`` decides what happens then,
and ``step_record`` records a step so that it can be repeated.
"""
from .non_finite_hook import NonFiniteHook
from .optim_wrapper import FiniteOptimWrapper
from .step_record import replay

__all__ = ['FiniteOptimWrapper', 'NonFiniteHook', 'replay']
