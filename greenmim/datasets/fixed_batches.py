# Copyright (c) greenmim authors. All rights reserved.
"""Some images that stay the same throughout a run, to compare with."""
from typing import Any, Callable, List, Sequence, Union

import torch

from greenmim.models.masking import MaskPlanner
from .image_folder import ImageFolder
from .planning_collate import PlanningCollate, image_size
from .seeding import SeededIndex, mix_seeds, sample_randomness
from .transforms import LoadImage


def on_folder(pipeline: Sequence[Union[dict, Callable]],
              data_root: str) -> ImageFolder:
    """Another folder of images, loaded as those of a data set are.

    Args:
        pipeline (Sequence[dict | Callable]): The transforms of the data set.
        data_root (str): The folder.
    """
    names = [
        transform['type']
        if isinstance(transform, dict) else type(transform).__name__
        for transform in pipeline
    ]
    # In the pipeline of a data set that holds decoded images, nothing loads.
    if not any('Load' in str(name) for name in names):
        pipeline = [LoadImage(), *pipeline]
    return ImageFolder(data_root, pipeline)


def fixed_samples(dataset: Any, number: int, seed: int = 0) -> List[dict]:
    """Samples of a data set, evenly spaced, the same in every run.

    They are augmented as in training, from seeds of their own. The global
    random generators are left as they were.

    Args:
        dataset (Dataset): The data set.
        number (int): How many samples at most.
        seed (int): Seed of the augmentation. Defaults to 0.

    Returns:
        list[dict]: Samples as the pipeline packs them. Their data samples
        have the seed of their mask, ``mask_seed``.
    """
    number = min(number, len(dataset))
    samples = []
    for i in range(number):
        index = SeededIndex(i * len(dataset) // number, mix_seeds(seed, i))
        with sample_randomness(index):  # for data sets that do not seed
            sample = dataset[index]
        sample['data_samples'].set_metainfo(
            dict(mask_seed=mix_seeds(index.seed)))
        samples.append(sample)
    return samples


def fixed_batches(dataset: Any,
                  collate_fn: Callable,
                  planner: MaskPlanner,
                  number: int,
                  batch_size: int = 8,
                  seed: int = 0) -> List[dict]:
    """Batches of images with one mask, the same in every run.

    One mask for all, since features differ by mask too; where images are
    padded, one for each.

    Args:
        dataset (Dataset): The data set, see :func:`fixed_samples`.
        collate_fn (Callable): Of the training's data loader.
        planner (MaskPlanner): Draws and plans the mask.
        number (int): How many images at most.
        batch_size (int): Images a batch. Defaults to 8.
        seed (int): Seed of augmentation and mask. Defaults to 0.

    Returns:
        list[dict]: Collated batches with the plan of their mask. Where the
        pipeline made masks, these are left.
    """
    if isinstance(collate_fn, PlanningCollate):
        collate_fn = collate_fn.collate_fn
    samples = fixed_samples(dataset, number, seed)
    batches = []
    for start in range(0, len(samples), batch_size):
        chunk = samples[start:start + batch_size]
        batch = collate_fn(chunk)
        first = batch['data_samples'][0]
        if 'mask' not in first:
            generator = torch.Generator().manual_seed(mix_seeds(seed))
            plan = planner(
                1,
                image_size(chunk, batch),
                generator=generator,
                own_sizes=first.get('own_sizes'))
            first.set_metainfo(dict(mask_plan=plan))
        batches.append(batch)
    return batches
