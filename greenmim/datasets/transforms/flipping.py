# Copyright (c) greenmim authors. All rights reserved.
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import RandomFlip as _RandomFlip

from greenmim.registry import TRANSFORMS

# What OpenCV calls them.
CODES = dict(horizontal=1, vertical=0, diagonal=-1)


@TRANSFORMS.register_module()
class RandomFlip(_RandomFlip):
    """MMCV's ``RandomFlip`` for images alone, with the same draws.

    MMCV's result is a view that runs backwards, which ``PackInputs`` then
    copies slowly.

    **Required Keys:**

    - img

    **Modified Keys:**

    - img

    **Added Keys:**

    - flip (bool), flip_direction (str | None)

    Args:
        **kwargs: See ``mmcv.transforms.RandomFlip``: ``prob, direction``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def transform(self, results: dict) -> dict:
        """Flip the image, or leave it as it is."""
        image = results['img']
        simple = isinstance(self.prob, float) and isinstance(
            self.direction, str)
        # OpenCV has not every type of numbers.
        if not (simple and image.dtype == np.uint8
                and image.shape[2:] in ((), (3, ))):
            results = super().transform(results)
            results['img'] = np.ascontiguousarray(results['img'])
            return results
        # What `numpy.random.choice` draws between one direction and none.
        flip = np.random.random_sample() < self.prob
        results['flip'] = flip
        results['flip_direction'] = self.direction if flip else None
        if flip:
            results['img'] = cv2.flip(image, CODES[self.direction])
        return results
