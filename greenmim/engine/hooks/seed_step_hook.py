# Copyright (c) greenmim authors. All rights reserved.
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim.datasets.seeding import mix_seeds
from greenmim.registry import HOOKS


@HOOKS.register_module()
class SeedStepHook(Hook):
    """Seed the generators of a training step by run, iteration and process.

    Drop path, dropout, MixUp and CutMix then draw the same numbers in a
    resumed run, although no state of a generator is saved.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        seed = mix_seeds(runner.seed, runner.iter, get_rank())
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
