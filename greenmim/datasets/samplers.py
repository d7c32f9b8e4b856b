# Copyright (c) greenmim authors. All rights reserved.
from itertools import count, islice
from typing import Any, Iterator, Optional

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler

from greenmim.registry import DATA_SAMPLERS
from .seeding import SeededIndex, mix_seeds


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """MMEngine's ``DefaultSampler`` that seeds every sample.

    The randomness of a sample is a function of seed, epoch and index (see
    :mod:`.seeding`), and an epoch can begin in the middle.

    Args:
        *args: See ``mmengine.dataset.DefaultSampler``.
        views_per_image (int, optional): How many fixed views every image has,
            for :class:`CachedTargets`; see
            :meth:`.seeding.SeededIndex.of_epoch`. Defaults to None, a new
            view every epoch.
        **kwargs: See ``mmengine.dataset.DefaultSampler``.
    """

    start = 0
    """Number of samples of this process that the next epochs skip."""

    def __init__(self,
                 *args: Any,
                 views_per_image: Optional[int] = None,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.views_per_image = views_per_image

    def __iter__(self) -> Iterator[int]:
        for index in islice(super().__iter__(), self.start, None):
            yield SeededIndex.of_epoch(index, self.seed, self.epoch,
                                       self.views_per_image)


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler(InfiniteSampler):
    """MMEngine's ``InfiniteSampler`` that seeds every sample.

    An epoch is one pass over the data.

    Args:
        *args: See ``mmengine.dataset.InfiniteSampler``.
        views_per_image (int, optional): As of :class:`SeededSampler`. Defaults
            to None.
        **kwargs: See ``mmengine.dataset.InfiniteSampler``.
    """

    def __init__(self,
                 *args: Any,
                 views_per_image: Optional[int] = None,
                 **kwargs: Any) -> None:
        # The base class's constructor makes the iterator.
        self.views_per_image = views_per_image
        super().__init__(*args, **kwargs)

    def _infinite_indices(self) -> Iterator[int]:
        for epoch in count():
            generator = torch.Generator().manual_seed(
                mix_seeds(self.seed, epoch))
            order = torch.arange(self.size)
            if self.shuffle:
                order = torch.randperm(self.size, generator=generator)
            for index in order.tolist():
                yield SeededIndex.of_epoch(index, self.seed, epoch,
                                           self.views_per_image)
