# Copyright (c) greenmim authors. All rights reserved.
"""Labelled images in class folders, to evaluate features with."""
import copy
from pathlib import Path
from typing import Dict, List, Tuple

from mmpretrain.datasets import CustomDataset

from greenmim.datasets import ImageFolder

# In a folder without a validation part, every n-th image of a class.
HELD_OUT = 5


def labelled_folder(root: str,
                    size: int = 224,
                    channels: int = 3) -> Tuple[CustomDataset, CustomDataset]:
    """Two sets of labelled images: those to learn from and those to classify.

    ``root`` holds ``train`` and one of ``val`` and ``test``, each with a
    folder of images for every class; or it holds the class folders, and every
    fifth image of a class is classified.

    Args:
        root (str): The folder.
        size (int): Side of the images in pixels. The shorter side is resized
            to 8/7 of it, and the centre is cropped. Defaults to 224.
        channels (int): Channels of the images. Defaults to 3.

    Returns:
        tuple[CustomDataset]: The images to learn from, those to classify.

    Raises:
        ValueError: If the folder is missing or has another layout.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f'expected a folder of labelled images, but there '
                         f'is no folder {folder}')
    held_out = [part for part in ('val', 'test') if (folder / part).is_dir()]
    if not (folder / 'train').is_dir():
        return _split(_class_folders(folder, size, channels))
    if not held_out:
        raise ValueError(f'expected {folder / "val"} or {folder / "test"} '
                         f'beside {folder / "train"}, but there is neither')
    train, queries = (
        _class_folders(folder / part, size, channels)
        for part in ('train', held_out[0]))
    differing = set(train.CLASSES) ^ set(queries.CLASSES)
    if differing:
        raise ValueError(
            f'expected the same class folders in train and {held_out[0]} of '
            f'{folder}, but only one of them has {sorted(differing)[:10]}')
    return train, queries


def _class_folders(folder: Path, size: int, channels: int) -> CustomDataset:
    pipeline = [
        dict(type='greenmim.LoadImage', channels=channels),
        dict(
            type='ResizeEdge',
            scale=round(size * 8 / 7),
            edge='short',
            backend='pillow',
            interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=size),
        dict(type='PackInputs')
    ]
    try:
        return CustomDataset(
            str(folder), extensions=ImageFolder.EXTENSIONS, pipeline=pipeline)
    except RuntimeError as error:
        raise ValueError(
            f'expected a folder of images for every class in {folder}, but '
            'found no image') from error


def _split(dataset: CustomDataset) -> Tuple[CustomDataset, CustomDataset]:
    seen: Dict[int, int] = dict()
    kept: List[int] = []
    held_out: List[int] = []
    for i, label in enumerate(dataset.get_gt_labels()):
        seen[label] = seen.get(label, 0) + 1
        (kept if seen[label] % HELD_OUT else held_out).append(i)
    if not held_out:
        raise ValueError(
            f'expected at least {HELD_OUT} images of a class, or train and '
            f'val folders, in {dataset.data_root}')
    # `get_subset` of MMEngine 0.10 keeps the ids of everything it ever copied:
    # a later object at the same address is exchanged for that copy.
    parts = copy.deepcopy(dataset), dataset
    for part, indices in zip(parts, (kept, held_out)):
        part.get_subset_(indices)
    return parts
