# Copyright (c) greenmim authors. All rights reserved.
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from greenmim.ops import VisibleLayout
from greenmim.ops.mask_unit import Grid
from greenmim.registry import TASK_UTILS


@TASK_UTILS.register_module()
class GivenMask:
    """Masks from files or arrays.

    ``mask_ratio`` is ignored: the masks determine the share of hidden units.

    Args:
        masks (Sequence[str | Path | Sequence | np.ndarray]): A mask for every
            unit grid, that is, for every image size. The first mask that is a
            whole multiple of the grid and hides whole units is used. Each is
            an array or nested list, or a file: ``.npy``, or a picture whose
            light pixels are masked. An array has the shape (Gh, Gw), 1 or
            True = masked, or (N, Gh, Gw) to draw from, all with the same
            number of visible units.

    Raises:
        ValueError: If a mask has another shape, other values or no visible
            unit.
    """

    def __init__(self, masks: Sequence[Any]) -> None:
        if isinstance(masks, (str, Path)) or not len(masks):
            raise ValueError("expected a list of masks, ['mask.npy'] for "
                             f'example, got {masks!r}')
        self.masks = [_read(mask) for mask in masks]

    def __call__(self,
                 num_masks: int,
                 grid: Grid,
                 mask_ratio: float,
                 generator: Optional[torch.Generator] = None) -> Tensor:
        """See :func:`greenmim.models.masking.random_mask`.

        Raises:
            ValueError: If none of the masks fits the grid.
        """
        for given in self.masks:
            try:
                layout = VisibleLayout.from_mask(given, grid)
            except ValueError:
                continue
            drawn = torch.randint(
                len(given), (num_masks, ), generator=generator)
            return layout.masked[drawn]
        raise ValueError(
            f'expected a mask for the unit grid {tuple(grid)} or a whole '
            'multiple of it that covers units as a whole, got masks of '
            f'{[tuple(mask.shape[1:]) for mask in self.masks]}; add one to '
            'the masks of GivenMask, or resize the images')


def _read(mask: Any) -> Tensor:
    """A mask as bool of shape (N, rows, columns)."""
    name = ''
    if isinstance(mask, (str, Path)):
        name = f'in {mask}: '
        mask = _read_file(Path(mask))
    try:
        array = torch.as_tensor(np.asarray(mask))
    except (TypeError, ValueError):  # text, or rows of several lengths
        raise ValueError(f'{name}expected a mask of numbers 0 and 1 in rows '
                         f'of one length, got {mask!r}') from None
    if array.ndim == 2:
        array = array[None]
    try:
        return VisibleLayout.from_mask(array).masked
    except ValueError as error:
        raise ValueError(name + str(error)) from None


def _read_file(path: Path) -> np.ndarray:
    try:
        if path.suffix.lower() == '.npy':
            return np.load(path)
        with Image.open(path) as picture:
            return np.asarray(picture.convert('L')) > 127
    except FileNotFoundError:
        raise
    # NumPy and Pillow raise these for damaged files and other formats.
    except (EOFError, OSError, ValueError) as error:
        raise ValueError(
            f'cannot read {path} ({type(error).__name__}): expected a mask, '
            'an array of numbers in a file .npy or a picture') from error
