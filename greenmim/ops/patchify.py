# Copyright (c) greenmim authors. All rights reserved.
"""Images <-> one vector of pixels for every mask unit.

The vector of a unit is ordered row, column, channel, the channel fastest:
``index = (y * unit_size + x) * C + c``.

    images_BCHW   B images, C channels
    patches_BLD   L = Gh * Gw units in row-major order, D = unit_size**2 * C
"""
from torch import Tensor

from .mask_unit import Grid, unit_grid


def patchify(images_BCHW: Tensor, unit_size: int) -> Tensor:
    """Cut images into the pixel vectors of their mask units.

    Args:
        images_BCHW (Tensor): Images with sides that are multiples of
            ``unit_size``.
        unit_size (int): Side of a mask unit in pixels.

    Returns:
        Tensor: Shape (B, L, unit_size**2 * C).

    Raises:
        ValueError: If a side is not a multiple of ``unit_size``.
    """
    B, C, H, W = images_BCHW.shape
    rows, cols = unit_grid((H, W), unit_size)
    x = images_BCHW.reshape(B, C, rows, unit_size, cols, unit_size)
    x = x.permute(0, 2, 4, 3, 5, 1)  # (B, Gh, Gw, y, x, C)
    return x.reshape(B, rows * cols, unit_size * unit_size * C)


def unpatchify(patches_BLD: Tensor, unit_size: int, grid: Grid) -> Tensor:
    """Put the pixel vectors of all mask units together, undo `patchify`.

    Args:
        patches_BLD (Tensor): Shape (B, L, unit_size**2 * C).
        unit_size (int): Side of a mask unit in pixels.
        grid (tuple[int, int]): The unit grid (Gh, Gw).

    Returns:
        Tensor: Images of shape (B, C, Gh * unit_size, Gw * unit_size).

    Raises:
        ValueError: If there are not Gh * Gw vectors, or their length is no
            multiple of ``unit_size**2``.
    """
    B, L, D = patches_BLD.shape
    rows, cols = grid
    C, rest = divmod(D, unit_size * unit_size)
    if L != rows * cols or rest or not C:
        raise ValueError(
            f'expected vectors of shape (B, {rows * cols}, a multiple of '
            f'{unit_size**2}) for the unit grid {(rows, cols)}, got '
            f'{tuple(patches_BLD.shape)}')
    x = patches_BLD.reshape(B, rows, cols, unit_size, unit_size, C)
    x = x.permute(0, 5, 1, 3, 2, 4)  # (B, C, Gh, y, Gw, x)
    return x.reshape(B, C, rows * unit_size, cols * unit_size)
