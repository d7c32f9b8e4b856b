# Copyright (c) greenmim authors. All rights reserved.
from itertools import count, islice
from typing import Iterator

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler

from greenmim.registry import DATA_SAMPLERS
from .seeding import SeededIndex, mix_seeds


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """MMEngine's ``DefaultSampler`` that seeds every sample.

    The randomness of a sample is a function of seed, epoch and index (see
    :mod:`.seeding`), and an epoch can begin in the middle.
    """

    start = 0
    """Number of samples of this process that the next epochs skip."""

    def __iter__(self) -> Iterator[int]:
        for index in islice(super().__iter__(), self.start, None):
            seed = mix_seeds(self.seed, self.epoch, index)
            yield SeededIndex(index, seed)


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler(InfiniteSampler):
    """MMEngine's ``InfiniteSampler`` that seeds every sample.

    An epoch is one pass over the data.
    """

    def _infinite_indices(self) -> Iterator[int]:
        for epoch in count():
            generator = torch.Generator().manual_seed(
                mix_seeds(self.seed, epoch))
            order = torch.arange(self.size)
            if self.shuffle:
                order = torch.randperm(self.size, generator=generator)
            for index in order.tolist():
                seed = mix_seeds(self.seed, epoch, index)
                yield SeededIndex(index, seed)
