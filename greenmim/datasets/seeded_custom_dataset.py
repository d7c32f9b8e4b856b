# Copyright (c) greenmim authors. All rights reserved.
from mmpretrain.datasets import CustomDataset

from greenmim.registry import DATASETS
from .seeding import seeded


@DATASETS.register_module()
class SeededCustomDataset(CustomDataset):
    """MMPretrain's ``CustomDataset`` whose samples draw from their seeds.

    With :class:`SeededSampler`, the augmentation of a labelled image is a
    function of seed, epoch and index, so that a resumed fine-tuning sees the
    same crops. The arguments are those of ``CustomDataset``.
    """

    __getitem__ = seeded(CustomDataset.__getitem__)
