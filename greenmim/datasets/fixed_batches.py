# Copyright (c) greenmim authors. All rights reserved.
"""Images that stay the same throughout a run, for measurements."""
import logging
from copy import copy
from typing import Any, Callable, List, Literal, Sequence, Union

from mmengine.logging import print_log

from greenmim.models.masking import MaskPlanner
from greenmim.models.masking.data_samples import (image_size, plan_masks,
                                                  read_skipped_images,
                                                  write_plan, write_seed)
from .image_folder import ImageFolder
from .planning_collate import PlanningCollate
from .seeding import SeededIndex, mix_seeds, sample_randomness
from .transforms import LoadImage


def folder_with_pipeline(pipeline: Sequence[Union[dict, Callable]],
                         data_root: str) -> ImageFolder:
    """A folder of images that are loaded like those of a data set.

    Args:
        pipeline (Sequence[dict | Callable]): The transforms of the data set.
        data_root (str): The folder.
    """
    names = [
        transform['type']
        if isinstance(transform, dict) else type(transform).__name__
        for transform in pipeline
    ]
    # The pipeline of a data set of decoded images loads nothing.
    if not any('Load' in str(name) for name in names):
        pipeline = [LoadImage(), *pipeline]
    return ImageFolder(data_root, pipeline)


def fixed_samples(dataset: Any, number: int, seed: int = 0) -> List[dict]:
    """Samples of a data set, evenly spaced, the same in every run.

    They are augmented as in training, from seeds of their own. The states of
    the global random generators do not change. Images that cannot be read
    are left out, and their number is logged.

    Args:
        dataset (Dataset): The data set.
        number (int): The largest number of samples.
        seed (int): Seed of the augmentation. Defaults to 0.

    Returns:
        list[dict]: Samples as the pipeline packs them, with the seeds of
        their masks.
    """
    number = min(number, len(dataset))
    samples = []
    for i in range(number):
        index = SeededIndex(i * len(dataset) // number, mix_seeds(seed, i))
        with sample_randomness(index):  # for data sets that do not seed
            sample = dataset[index]
        if read_skipped_images(sample['data_samples']):
            continue  # it is another image
        write_seed(sample['data_samples'], mix_seeds(index.seed))
        samples.append(sample)
    if len(samples) < number:
        print_log(
            f'Left out {number - len(samples)} of {number} images that are '
            'measured, since they cannot be read.',
            logger='current',
            level=logging.WARNING)
    return samples


def fixed_batches(
        dataset: Any,
        collate_fn: Callable,
        planner: MaskPlanner,
        number: int,
        batch_size: int = 8,
        seed: int = 0,
        mask_scope: Literal['batch', 'image'] = 'batch') -> List[dict]:
    """Batches of images with fixed masks, the same in every run.

    Masks that the pipeline made are used.

    Args:
        dataset (Dataset): The data set, see :func:`fixed_samples`.
        collate_fn (Callable): The collate function of the training loader.
        planner (MaskPlanner): Draws and plans the mask.
        number (int): The largest number of images.
        batch_size (int): Images a batch. Defaults to 8.
        seed (int): Seed of augmentation and mask. Defaults to 0.
        mask_scope (str): ``'batch'``: all images share one mask, since
            features also depend on the mask, and padded images have one each.
            ``'image'``: every image has its own. Defaults to ``'batch'``.
    """
    if isinstance(collate_fn, PlanningCollate):
        collate_fn = collate_fn.collate_fn
    if mask_scope == 'image':
        planner = copy(planner)
        planner.mask_scope = mask_scope
    samples = fixed_samples(dataset, number, seed)
    batches = []
    for start in range(0, len(samples), batch_size):
        batch = collate_fn(samples[start:start + batch_size])
        data_samples = batch['data_samples']
        seeds = (seed, ) if mask_scope == 'batch' else (seed, start)
        write_seed(data_samples[0], mix_seeds(*seeds))
        number = 1 if mask_scope == 'batch' else len(data_samples)
        plan = plan_masks(planner, data_samples, number,
                          image_size(batch['inputs']))
        write_plan(data_samples, plan)
        batches.append(batch)
    return batches
