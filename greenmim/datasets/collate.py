# Copyright (c) greenmim authors. All rights reserved.
"""Batches of images of one size, and what to do about other images."""
from itertools import zip_longest
from typing import Any, Optional, Sequence

from mmengine.dataset import Compose, default_collate
from torch import Tensor

from greenmim.models.masking.data_samples import (read_short_crop,
                                                  write_short_crop)
from greenmim.registry import FUNCTIONS
from .transforms import LoadImage, RandomResizedCrop


class CropWatchingPipeline(Compose):
    """The transforms of a data set, which notes crops larger than an image.

    ``RandomCrop`` and ``CenterCrop`` then return the image as it is. Padding
    can deal with that; :func:`collate` refuses it.

    :class:`LoadImage` is told of a :class:`RandomResizedCrop` that follows.
    """

    def __call__(self, data: dict) -> Optional[dict]:
        short = None
        for transform, following in zip_longest(self.transforms,
                                                self.transforms[1:]):
            if isinstance(transform, LoadImage) and isinstance(
                    following, RandomResizedCrop):
                data = transform.transform(data, following)
            else:
                data = transform(data)
            if data is None:
                return None
            crop = getattr(transform, 'crop_size', None)
            if crop is not None and 'img' in data:
                wanted = (crop, crop) if isinstance(crop, int) else crop
                size = data['img'].shape[:2]
                if size[0] < wanted[0] or size[1] < wanted[1]:
                    short = (f'{type(transform).__name__}(crop_size={crop})',
                             size)
        if short and 'data_samples' in data:
            write_short_crop(data['data_samples'], short)
        return data


@FUNCTIONS.register_module()
def collate(samples: Sequence[dict]) -> Any:
    """MMEngine's ``default_collate``, for images of one size.

    Args:
        samples (Sequence[dict]): Samples as ``PackInputs`` packs them.

    Returns:
        dict: The batch as :func:`mmengine.dataset.default_collate` makes it.

    Raises:
        ValueError: If the images have different sizes, or are smaller than
            the crop that should have given them their size.
    """
    for sample in samples:
        short = read_short_crop(sample['data_samples'])
        if short:
            crop, (height, width) = short
            raise ValueError(
                f'expected images of at least the size of {crop} in the '
                f'`pipeline` of the dataset, got {height} x {width} pixels '
                f'of {_name(sample)}; choose a smaller crop_size, or enlarge '
                'the images before it, by RandomResizedCrop or ResizeEdge')
    first = samples[0]
    for sample in samples[1:]:
        if _shape(sample) != _shape(first):
            raise ValueError(
                'expected images of one size in a batch, got (channels, '
                f'height, width) = {_shape(first)} of {_name(first)} and '
                f'{_shape(sample)} of {_name(sample)}; bring them to one size '
                'in the `pipeline` of the dataset, by RandomResizedCrop or '
                'Resize, or pad them: collate_fn=dict('
                "type='greenmim.padding_collate') of the data loader (with "
                'batch_size=1 every batch has one size)')
    return default_collate(samples)


def _shape(sample: dict) -> Any:
    """That of the image, or of each view."""
    inputs = sample['inputs']
    if isinstance(inputs, Tensor):
        return tuple(inputs.shape)
    return [tuple(view.shape) for view in inputs]


def _name(sample: dict) -> str:
    return sample['data_samples'].get('img_path', 'an image')
