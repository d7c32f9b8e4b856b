# Copyright (c) greenmim authors. All rights reserved.
"""Labelled images to evaluate features with."""
from typing import Any, Callable, Tuple, Union

from greenmim.datasets import LabelledFolder


def labelled_folder(root: str,
                    size: int = 224,
                    channels: int = 3,
                    load: Union[dict, Callable, None] = None,
                    **options: Any) -> Tuple[LabelledFolder, LabelledFolder]:
    """Two sets of labelled images: those to learn from and those to classify.

    Images that cannot be read are left out of both, and listed in the log.

    Args:
        root (str): The folder, see :class:`greenmim.datasets.LabelledFolder`
            for its layouts.
        size (int): Side of the images in pixels. The shorter side is resized
            to 8/7 of it, and the centre is cropped. Defaults to 224.
        channels (int): Channels of the images. Defaults to 3.
        load (dict | Callable, optional): The transform that loads an image,
            that of a pre-training for example. Defaults to None,
            ``LoadImage`` with these channels.
        **options: See :class:`greenmim.datasets.LabelledFolder`.

    Returns:
        tuple[LabelledFolder]: The images to learn from, those to classify.

    Raises:
        ValueError: If the folder is missing or has another layout.
    """
    pipeline = [
        load or dict(type='greenmim.LoadImage', channels=channels),
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
        bank, queries = (
            LabelledFolder(root, pipeline, split, test_mode=True, **options)
            for split in ('train', 'val'))
    except FileNotFoundError as error:
        raise ValueError(f'expected a folder of labelled images: '
                         f'{error}') from error
    return bank, queries
