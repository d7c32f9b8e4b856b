# Copyright (c) greenmim authors. All rights reserved.
"""Randomness of a sample as a function of run, epoch and index.

Random generators in data-loading workers are not saved in checkpoints, so a
resumed run would see other crops. Here the sampler gives every index a seed.
The dataset draws from this seed alone, in whichever process it runs, and the
mask of a batch is drawn from the seed of its first sample.
"""
import random
from contextlib import contextmanager
from functools import wraps
from typing import Any, Callable, Iterator, Optional

import numpy as np
import torch

from greenmim.models.masking.data_samples import write_seed

# NumPy's types do not declare that its generator can be exchanged.
_random: Any = np.random
# Of the samples; a sample within a sample has another one.
_OWN = np.random.MT19937(0)


class SeededIndex(int):
    """The index of a sample with the seed of its randomness.

    Args:
        index (int): The index.
        seed (int): Seed of the image's crop and other augmentations.
        mask_seed (int, optional): Seed of the mask. Defaults to None, one that
            follows from ``seed``.
        view (int): Which of the fixed views of its image the sample is.
            Defaults to 0.
    """
    seed: int
    mask_seed: int
    view: int

    def __new__(cls,
                index: int,
                seed: int,
                mask_seed: Optional[int] = None,
                view: int = 0) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        # Not the seed itself, from which the crop is drawn.
        self.mask_seed = mix_seeds(seed) if mask_seed is None else mask_seed
        self.view = view
        return self

    def __getnewargs__(self) -> tuple:  # for pickle, which workers need
        return int(self), self.seed, self.mask_seed, self.view

    @classmethod
    def of_epoch(cls,
                 index: int,
                 seed: int,
                 epoch: int,
                 views_per_image: Optional[int] = None) -> 'SeededIndex':
        """The sample that an epoch makes of an image.

        Args:
            index (int): The index of the image.
            seed (int): The seed of the run.
            epoch (int): The epoch.
            views_per_image (int, optional): How many views every image has,
                one epoch each, then again from the first. They do not depend
                on ``seed``; masks do, and differ in every epoch. Defaults to
                None, a new view every epoch.
        """
        drawn = mix_seeds(seed, epoch, index)
        if views_per_image is None:
            return cls(index, drawn)
        view = epoch % views_per_image
        return cls(index, mix_seeds(view, index), mix_seeds(drawn), view)


def mix_seeds(*numbers: int) -> int:
    """A seed of 63 bits from some non-negative numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@contextmanager
def sample_randomness(index: int) -> Iterator[None]:
    """Seed all global generators by a :class:`SeededIndex`.

    Their states are restored afterwards, but for a normal number that NumPy
    may have drawn in advance. A plain index changes nothing.
    """
    seed = getattr(index, 'seed', None)
    if seed is None:
        yield
        return
    states = random.getstate(), torch.get_rng_state()
    # Copying NumPy's state would take longer than a crop.
    generator = _random.get_bit_generator()
    _random.set_bit_generator(
        _OWN if generator is not _OWN else np.random.MT19937(0))
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        _random.set_bit_generator(generator)
        torch.set_rng_state(states[1])


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
            write_seed(sample, idx.mask_seed)
        return data

    return seeded_getitem
