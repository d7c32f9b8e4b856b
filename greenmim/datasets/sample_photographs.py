# Copyright (c) greenmim authors. All rights reserved.
from functools import lru_cache
from typing import List, Sequence

import numpy as np
import skimage.data
from mmengine.dataset import BaseDataset
from PIL import Image

from greenmim.registry import DATASETS
from .held_out import HoldsOut
from .seeding import seeded


@DATASETS.register_module()
class SamplePhotographs(HoldsOut, BaseDataset):
    """Views of the photographs that come with scikit-image.

    They are part of its package, so nothing is downloaded. Each view is a
    square cut from one photograph at a random place and scale; all views are
    fixed by ``seed``. The photographs stay decoded in memory: the dataset
    provides ``img``, and its pipeline has no loading transform.

    **Added Keys:**

    - img (np.ndarray): uint8, (H, W, 3), BGR
    - img_shape, ori_shape (tuple): (H, W)
    - img_path (str): Name of the photograph in :mod:`skimage.data`

    Args:
        num_views (int): Number of views, spread evenly over the photographs.
            Defaults to 1024.
        min_side (int): Smallest side of a view in pixels; the largest is the
            shorter side of the photograph. Defaults to 160.
        seed (int): Seed of places and scales. Defaults to 0.
        held_out (int): Photographs of which no view is trained on, so that
            :class:`greenmim.engine.LearningHook` measures on their views.
            Defaults to 0.
        pipeline (Sequence[dict]): Transforms. Defaults to an empty
            tuple.

    Raises:
        ValueError: If ``num_views`` is below 1, ``min_side`` exceeds the
            photographs, or all are held out.
    """

    PHOTOGRAPHS = ('astronaut', 'brick', 'camera', 'chelsea', 'clock',
                   'coffee', 'coins', 'moon', 'rocket', 'stereo_motorcycle')

    def __init__(self,
                 num_views: int = 1024,
                 min_side: int = 160,
                 seed: int = 0,
                 held_out: int = 0,
                 pipeline: Sequence[dict] = ()) -> None:
        if num_views < 1:
            raise ValueError('`num_views` should be a positive number, but '
                             f'got {num_views}.')
        shortest = min(
            min(load_photograph(name).shape[:2]) for name in self.PHOTOGRAPHS)
        if not 1 <= min_side <= shortest:
            raise ValueError(f'`min_side` should be within [1, {shortest}], '
                             'the shortest side of all photographs, but got '
                             f'{min_side}.')
        self.num_views = num_views
        self.min_side = min_side
        self.seed = seed
        self.held_out = held_out
        super().__init__(data_prefix=dict(), pipeline=list(pipeline))

    def load_data_list(self) -> List[dict]:
        generator = np.random.default_rng(self.seed)
        data_list = []
        for view in range(self.num_views):
            name = self.PHOTOGRAPHS[view % len(self.PHOTOGRAPHS)]
            height, width = load_photograph(name).shape[:2]
            # Log-uniform: as many views between 100 and 200 pixels as
            # between 200 and 400.
            side = int(
                np.exp(
                    generator.uniform(
                        np.log(self.min_side), np.log(min(height, width)))))
            top = int(generator.integers(height - side + 1))
            left = int(generator.integers(width - side + 1))
            data_list.append(dict(img_path=name, box=(top, left, side, side)))
        return data_list

    @seeded
    def __getitem__(self, idx: int) -> dict:
        return super().__getitem__(idx)

    def get_data_info(self, idx: int) -> dict:
        data_info = super().get_data_info(idx)
        top, left, height, width = data_info.pop('box')
        photograph = load_photograph(data_info['img_path'])
        view = photograph[top:top + height, left:left + width]
        # RGB to BGR, and a copy, because transforms may write to it
        data_info['img'] = np.ascontiguousarray(view[..., ::-1])
        data_info['img_shape'] = data_info['ori_shape'] = view.shape[:2]
        return data_info


@lru_cache(maxsize=None)
def load_photograph(name: str) -> np.ndarray:
    """Load a photograph of scikit-image as uint8, (H, W, 3), RGB."""
    photograph = getattr(skimage.data, name)()
    if isinstance(photograph, tuple):  # a stereo pair with its disparity
        photograph = photograph[0]
    return np.asarray(Image.fromarray(photograph).convert('RGB'))
