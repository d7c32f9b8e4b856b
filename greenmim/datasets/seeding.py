# Copyright (c) greenmim authors. All rights reserved.
"""Randomness of a sample as a function of run, epoch and index.

The state of a random generator in a data-loading worker is nowhere saved, so
that a resumed run would see other crops. Here the sampler hands every index
on with a seed; the dataset draws from that alone, in whichever process it
runs, and the mask of a batch is drawn from the seed of its first sample.
"""
import random
from contextlib import contextmanager
from functools import wraps
from typing import Any, Callable, Iterator

import numpy as np
import torch


class SeededIndex(int):
    """The index of a sample that knows the seed of its randomness."""
    seed: int

    def __new__(cls, index: int, seed: int) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __getnewargs__(self) -> tuple:  # for pickle, which workers need
        return int(self), self.seed


def mix_seeds(*numbers: int) -> int:
    """A seed of 63 bits from some non-negative numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@contextmanager
def sample_randomness(index: int) -> Iterator[None]:
    """Seed all global generators by a :class:`SeededIndex`.

    Their states are put back afterwards. With a plain index nothing happens.
    """
    seed = getattr(index, 'seed', None)
    if seed is None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seeded(getitem: Callable[[Any, int], dict]) -> Callable[[Any, int], dict]:
    """Decorate the ``__getitem__`` of a dataset, to draw from the seed.

    The data sample gets the seed of the mask, in its meta information
    ``mask_seed``.
    """

    @wraps(getitem)
    def seeded_getitem(self: Any, idx: int) -> dict:
        with sample_randomness(idx):
            data = getitem(self, int(idx))
        sample = data.get('data_samples')
        if isinstance(idx, SeededIndex) and sample is not None:
            # Not the seed itself, whose first numbers the crop was made of.
            sample.set_metainfo(dict(mask_seed=mix_seeds(idx.seed)))
        return data

    return seeded_getitem
