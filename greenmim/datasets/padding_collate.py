# Copyright (c) greenmim authors. All rights reserved.
from typing import Sequence

import torch
from mmengine.dataset import default_collate
from torch import Tensor

from greenmim.models.masking.data_samples import write_own_sizes
from greenmim.registry import FUNCTIONS


@FUNCTIONS.register_module()
def padding_collate(samples: Sequence[dict], unit_size: int = 32) -> dict:
    """Collate images of any sizes, padded to one size in whole mask units.

    They are padded at the right and the bottom: first to whole units, then to
    the largest height and width of the batch. The padding mirrors the image.
    Units that hold padding alone are never visible, attended to or part of
    the loss, so that an image's result does not depend on its batch. If
    sizes differ, they become meta information ``own_sizes`` of the first data
    sample.

    Args:
        samples (Sequence[dict]): Samples as ``PackInputs`` packs them, with
            images (C, H, W) under ``inputs``.
        unit_size (int): Side of a mask unit in pixels. Defaults to 32.

    Returns:
        dict: The batch as :func:`mmengine.dataset.default_collate` makes it.

    Raises:
        ValueError: If a sample does not hold one image.
    """
    images = [sample['inputs'] for sample in samples]
    for image in images:
        if not isinstance(image, Tensor) or image.ndim != 3:
            raise ValueError(
                'expected an image of shape (C, H, W) as the inputs of every '
                'sample, got '
                f'{getattr(image, "shape", type(image).__name__)}')
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    whole = [
        tuple(-(-side // unit_size) * unit_size for side in size)
        for size in sizes
    ]
    height, width = (max(sides) for sides in zip(*whole))
    padded = []
    for sample, image, size in zip(samples, images, whole):
        # In two steps, so that the image's own units do not depend on others.
        image = _mirror(_mirror(image, *size), height, width)
        padded.append(dict(sample, inputs=image))
    batch = default_collate(padded)
    if len(set(whole)) > 1:
        write_own_sizes(batch['data_samples'], sizes)
    return batch


def _mirror(image: Tensor, height: int, width: int) -> Tensor:
    """Enlarge an image (C, H, W); repeat its first row where it is too small
    to mirror."""
    for axis, side in ((1, height), (2, width)):
        last = image.shape[axis] - 1
        if last + 1 < side:
            index = (last - (torch.arange(side) - last).abs()).clamp(min=0)
            image = image.index_select(axis, index)
    return image
