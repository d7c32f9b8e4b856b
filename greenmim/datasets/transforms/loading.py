# Copyright (c) greenmim authors. All rights reserved.
"""The first transform of a pipeline: from a file to an image."""
import dataclasses
import warnings
from typing import Any, Iterable, Optional, Tuple

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from PIL import UnidentifiedImageError

from greenmim.registry import TRANSFORMS
from ..decoding import Decoder
from ..decoding.levels import SUGGEST
from .cropping import RandomResizedCrop

FEW_LEVELS = 32


class UnreadableImageError(ValueError):
    """The file cannot be decoded into an image of the asked channels."""


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Load an image of any common kind with a fixed number of channels.

    MMCV's loader accepts truncated JPEG files (the missing part comes out
    grey), drops transparency and clips or wraps what has more than 8 bits.
    This one takes the first frame of animations, respects the EXIF
    orientation, and maps values of any number type to the scale 0 to 255 as
    :class:`greenmim.datasets.decoding.Decoder` says. It warns, once for a
    data set, where an image of a wider type uses few of the 256 levels.

    **Required Keys:**

    - img_path
    - img_bytes (optional): The content of the file, which is then not read
    - img_raster (optional): Its pixels, which are then not decoded

    **Added Keys:**

    - img (np.ndarray): uint8 or float32, (H, W, channels), BGR for three
      channels, or (H, W) for one, as MMCV loads images
    - img_shape, ori_shape (tuple): (H, W)

    Args:
        channels (int): Channels of every image. 1 and 3 are converted to;
            any other number is taken from files that hold exactly as many
            bands. Arrays of NPY files, like TIFF files of several bands, are
            (H, W, channels) or (channels, H, W), RGB for three channels.
            Defaults to 3.
        backend_args (dict, optional): Arguments of the file backend.
            Defaults to None.
        **options: See :class:`greenmim.datasets.decoding.Decoder`: ``bands,
            black_level, white_level, nodata, alpha, dtype, max_pixels,
            min_side, decoder``.

    Raises:
        UnreadableImageError: If the file is missing, empty, truncated, no
            image, holds other channels than asked for, or values that need a
            range.
        ValueError: If an option is out of range.
    """

    def __init__(self,
                 channels: int = 3,
                 backend_args: Optional[dict] = None,
                 **options: Any) -> None:
        self.decoder = Decoder(channels, **options)
        self.backend_args = backend_args
        # Shared by the data-loading workers.
        self._has_warned = torch.zeros((), dtype=torch.bool).share_memory_()

    def transform(self,
                  results: dict,
                  crop: Optional[RandomResizedCrop] = None) -> dict:
        """Load an image.

        Args:
            results (dict): See above.
            crop (RandomResizedCrop, optional): What crops the image next. Its
                crop is then drawn before a photograph is decoded, which may
                be at a smaller scale, and handed on as ``crop_box``.
        """
        path = results['img_path']
        results['decoder'] = self.decoder.decoder
        try:
            image, levels = self._decode(results, crop)
        except UnidentifiedImageError as error:
            raise UnreadableImageError(
                f'cannot read the image {path}: its content is of no known '
                'image format') from error
        # Decoders report broken files by exceptions of a dozen kinds.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise UnreadableImageError(
                f'cannot read the image {path}: {reason}') from error
        if levels is not None and levels < FEW_LEVELS:
            self._warn(path, levels)
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results.setdefault('ori_shape', image.shape[:2])
        return results

    def _decode(
            self, results: dict, crop: Optional[RandomResizedCrop]
    ) -> Tuple[np.ndarray, Optional[int]]:
        raster = results.pop('img_raster', None)
        if raster is not None:
            return self.decoder.convert(raster)
        content = results.pop('img_bytes', None)
        if content is None:
            content = get(results['img_path'], backend_args=self.backend_args)
        photograph = None
        if crop is not None and crop.is_fast:
            photograph = self.decoder.photograph(content)
        if crop is None or photograph is None:
            return self.decoder(content)
        box = crop.rand_crop_params(photograph)
        smaller = photograph.smaller_for(box[2:], crop.enough)
        image = photograph.decode(smaller)
        if image is None:
            return self.decoder(content)  # which says what is wrong
        results['ori_shape'] = photograph.shape
        results['crop_box'] = [length / smaller for length in box]
        return image, None

    def _warn(self, path: str, levels: int) -> None:
        if not self._has_warned:
            self._has_warned.fill_(True)
            warnings.warn(
                f'{path} uses {levels} of 256 levels, so that most of its '
                'contrast is lost if it is no flat image; set black_level and '
                f'white_level of LoadImage, which {SUGGEST} suggests')

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.decoder}, '
                f'backend_args={self.backend_args})')


def load_of(pipeline: Iterable[Any]) -> Optional[LoadImage]:
    """How a pipeline loads images, for others that have to be loaded alike.

    Args:
        pipeline (Iterable[dict | Callable]): The transforms.

    Returns:
        LoadImage | None: Its :class:`LoadImage`, but never smaller while
        decoding, or None if it has none.
    """
    for transform in pipeline:
        if isinstance(transform, dict):
            if str(transform['type']).split('.')[-1] == LoadImage.__name__:
                options = dict(transform, min_side=None)
                del options['type']
                return LoadImage(**options)
        elif isinstance(transform, LoadImage):
            options = dataclasses.asdict(transform.decoder)
            options.update(min_side=None)
            return LoadImage(backend_args=transform.backend_args, **options)
    return None
