# Copyright (c) greenmim authors. All rights reserved.
"""Training runs: hooks, loops and launching.

A folder for each idea: ``checkpoints``, ``cost`` (time, memory, energy),
``watching`` (is the model learning?), ``non_finite`` (steps that are not
finite), ``preemption`` (signals), and ``hooks`` for all other hooks.
"""
from greenmim import library_check  # noqa: F401
from .bfloat16 import BFloat16OptimWrapper  # noqa: F401
from .checkpoints import *  # noqa: F401, F403
from .cost import *  # noqa: F401, F403
from .fully_sharded import FullyShardedModel  # noqa: F401
from .hooks import *  # noqa: F401, F403
from .layer_decay import LayerDecayOptimWrapperConstructor  # noqa: F401
from .loops import ResumableEpochLoop  # noqa: F401
from .merged_groups import MergedOptimWrapperConstructor  # noqa: F401
from .non_finite import *  # noqa: F401, F403
from .preemption import *  # noqa: F401, F403
from .watching import *  # noqa: F401, F403
