# Copyright (c) greenmim authors. All rights reserved.
"""The visible-token layout: image grid <-> mask units.

A *mask unit* is a square of ``unit x unit`` pixels, ``unit`` being the final
stride of the backbone (32 px for four stages). It is visible or masked as a
whole, so at every stage the visible tokens are whole squares of
``side x side`` tokens (8, 4, 2, 1). They are kept **unit-major**::

    x_BKTC  visible units in row-major order of the unit grid, the tokens of a
            unit in row-major order

In this order patch embedding, patch merging and every convolution whose
kernel equals its stride are reshapes and a matrix product inside a unit.

Decoder and targets work on one vector of pixels for every unit, visible or
masked::

    patches_BLD  all units in row-major order, D = unit**2 * C pixel values in
                 the order row, column, channel: (y * unit + x) * C + c

The letters are defined in :mod:`greenmim.ops`.
"""
from dataclasses import dataclass
from functools import cached_property
from typing import Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor

Grid = Tuple[int, int]


@dataclass(frozen=True, eq=False)
class VisibleLayout:
    """Which mask units are visible, in the forms that the model needs.

    Everything lives on the CPU. Make one with :meth:`from_mask`.

    Args:
        visible (Tensor): Bool of shape (M, Gh, Gw), True = kept.
        units (Tensor): Int64 of shape (M, K), the numbers
            ``row * Gw + column`` of the visible units, ascending.
        valid (Tensor, optional): Bool of shape (M, Gh, Gw), False = padding,
            in a batch of images of several sizes. Defaults to None, nothing
            is padding.
    """
    visible: Tensor
    units: Tensor
    valid: Optional[Tensor] = None

    def __reduce__(self) -> tuple:
        # Tensors travel between processes as open files, arrays as bytes.
        given = [x for x in (self.visible, self.units, self.valid)
                 if x is not None]  # yapf: disable
        return _layout_of, tuple(tensor.numpy() for tensor in given)

    @classmethod
    def from_mask(cls,
                  mask: Union[Tensor, 'VisibleLayout'],
                  grid: Optional[Grid] = None,
                  valid: Optional[Tensor] = None) -> 'VisibleLayout':
        """Validate a mask and turn it into a layout.

        Args:
            mask (Tensor | VisibleLayout): Bool of shape (M, Gh, Gw) with
                True = masked, M being 1 for a mask shared by the batch. A
                finer mask (sides an integer multiple of ``grid``) is reduced
                to units. Numbers are accepted if all of them are 0 or 1. A
                mask on a device costs one copy to the CPU, which waits for
                the device. A layout is returned unchanged.
            grid (tuple[int, int], optional): The unit grid (Gh, Gw) that is
                expected. Defaults to None, the mask's own.
            valid (Tensor, optional): Bool of shape (M, Gh, Gw), False =
                padding, which every mask has to hide. Defaults to None,
                nothing is padding.

        Raises:
            TypeError: If ``mask`` is not a tensor.
            ValueError: If shape, values or the number of visible units (the
                same for every mask, at least one) are wrong, a unit is
                partly masked, or padding is visible.
        """
        if isinstance(mask, VisibleLayout):
            if grid is not None and mask.grid != tuple(grid):
                raise ValueError(
                    f'expected a layout of the unit grid {grid}, got one of '
                    f'{mask.grid}; images have one unit_size, which backbone '
                    'and head of a model share')
            return mask
        if not isinstance(mask, Tensor):
            raise TypeError('expected mask to be a bool tensor of shape (M, '
                            f'Gh, Gw), got {type(mask).__name__}')
        if mask.ndim != 3 or 0 in mask.shape:
            raise ValueError(
                'expected a mask of shape (M, Gh, Gw), M = 1 for one mask '
                f'shared by the batch, got {tuple(mask.shape)}')
        masked = _as_bool(mask.detach().cpu())
        if grid is not None:
            masked = _reduce_to_units(masked, grid)
        visible = ~masked
        flat = visible.flatten(1).numpy()
        counts = flat.sum(1)
        kept = int(counts[0])
        if (counts != kept).any():
            raise ValueError(
                'expected every mask of a batch to leave the same number of '
                f'units visible, got {sorted(set(counts.tolist()))}')
        if kept == 0:
            raise ValueError('expected at least one visible unit, got a mask '
                             'that hides everything; lower the mask ratio')
        if valid is not None and not (valid.shape == visible.shape and
                                      (valid | ~visible).all()):
            raise ValueError(
                'expected a mask for every image of the batch that hides the '
                f'units of its padding, got masks {tuple(visible.shape)} for '
                f'{len(valid)} images; leave the masks to the model')
        units = flat.nonzero()[1].reshape(-1, kept)
        return cls(visible, torch.from_numpy(units), valid)

    @property
    def grid(self) -> Grid:
        """The unit grid (Gh, Gw)."""
        return self.visible.shape[1], self.visible.shape[2]

    @cached_property
    def masked(self) -> Tensor:
        """Bool (M, Gh, Gw), True = masked and not padding."""
        masked = ~self.visible
        return masked if self.valid is None else masked & self.valid

    @property
    def num_units(self) -> int:
        """L = Gh * Gw."""
        return self.visible[0].numel()

    @property
    def num_masks(self) -> int:
        """M: 1 for a mask shared by the batch, else the batch size."""
        return self.units.shape[0]

    @property
    def num_visible(self) -> int:
        """K, the visible units of an image."""
        return self.units.shape[1]

    @cached_property
    def restore(self) -> Tensor:
        """Int64 (M, L): the position of every unit among the visible units.

        A masked unit has the position K, that of a mask token appended to
        the visible units.
        """
        restore = self.units.new_full((self.num_masks, self.num_units),
                                      self.num_visible)
        rank = torch.arange(self.num_visible).expand_as(self.units)
        return restore.scatter_(1, self.units, rank)

    def check_batch(self, batch_size: int) -> None:
        """Raise ``ValueError`` unless the masks fit ``batch_size`` images."""
        if self.num_masks not in (1, batch_size):
            raise ValueError(
                f'expected 1 mask for the batch or {batch_size}, one per '
                f'image, got {self.num_masks}')


def _layout_of(*arrays: np.ndarray) -> VisibleLayout:
    return VisibleLayout(*map(torch.from_numpy, arrays))


def _as_bool(mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return mask
    masked = mask == 1
    if mask.is_complex() or not bool((masked | (mask == 0)).all()):
        raise ValueError(
            'expected a bool mask (True = masked), or numbers that are all 0 '
            f'or 1, got {mask.dtype} with other values')
    return masked


def _reduce_to_units(masked: Tensor, grid: Grid) -> Tensor:
    num, height, width = masked.shape
    rows, rem_rows = divmod(height, grid[0])
    cols, rem_cols = divmod(width, grid[1])
    if rem_rows or rem_cols or rows != cols or rows == 0:
        raise ValueError(
            f'expected a mask of the unit grid {tuple(grid)} or a whole '
            f'multiple of it, got {(height, width)}')
    if rows == 1:
        return masked
    cells = masked.view(num, grid[0], rows, grid[1], cols)
    masked = cells.all(4).all(2)
    if not torch.equal(masked, cells.any(4).any(2)):
        raise ValueError(
            f'expected a mask that covers units of {rows}x{cols} cells as a '
            'whole, got units that are partly masked; draw the mask on the '
            f'unit grid {tuple(grid)}')
    return masked


def unit_grid(image_size: Sequence[int], unit_size: int) -> Grid:
    """The unit grid of an image.

    Args:
        image_size (Sequence[int]): Height and width in pixels.
        unit_size (int): Side of a mask unit in pixels.

    Returns:
        tuple[int, int]: Rows and columns of units, (Gh, Gw).

    Raises:
        ValueError: If a side is not a multiple of ``unit_size``.
    """
    height, width = image_size
    if height % unit_size or width % unit_size or not height or not width:
        nearest = tuple(
            max(1, round(side / unit_size)) * unit_size for side in image_size)
        raise ValueError(
            f'expected image sides that are multiples of the mask unit '
            f'({unit_size} px), got {(height, width)}; resize or crop to '
            f'{nearest}, for example')
    return height // unit_size, width // unit_size


def gather_units(x_BL: Tensor, units: Tensor) -> Tensor:
    """Select the visible units.

    Args:
        x_BL (Tensor): Shape (B, L, ...), all units in row-major order.
        units (Tensor): Int64 (M, K) on the device of ``x_BL``.

    Returns:
        Tensor: Shape (B, K, ...).
    """
    if units.shape[0] == 1:
        return x_BL.index_select(1, units[0])
    batch = torch.arange(x_BL.shape[0], device=x_BL.device)
    return x_BL[batch[:, None], units]


def patches_of_units(images_BCHW: Tensor, units: Tensor, unit_size: int,
                     patch_size: int) -> Tensor:
    """Cut the visible units into patches; masked pixels are never read.

    Args:
        images_BCHW (Tensor): Images with sides that are multiples of
            ``unit_size``.
        units (Tensor): Int64 (M, K) on the device of the images.
        unit_size (int): Side of a mask unit in pixels.
        patch_size (int): Side of a patch in pixels, a divisor of
            ``unit_size``.

    Returns:
        Tensor: Shape (B, K, T, C * patch_size**2), a patch's pixels ordered
        (channel, row, column) like a convolution's weight.
    """
    B, C, H, W = images_BCHW.shape
    rows, cols = H // unit_size, W // unit_size
    side = unit_size // patch_size
    x = images_BCHW.view(B, C, rows, side, patch_size, cols, side, patch_size)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, Gh, Gw, y, x, C, dy, dx)
    if units.shape[0] == 1:
        x = x[:, units[0] // cols, units[0] % cols]
    else:
        batch = torch.arange(B, device=x.device)[:, None]
        x = x[batch, units // cols, units % cols]
    return x.reshape(B, -1, side * side, C * patch_size * patch_size)


def units_of_map(x_BCHW: Tensor, grid: Grid) -> Tensor:
    """Cut a feature map into the tokens of all units.

    Args:
        x_BCHW (Tensor): A map whose sides are multiples of the grid's.
        grid (tuple[int, int]): The unit grid (Gh, Gw).

    Returns:
        Tensor: Unit-major, (B, Gh * Gw, T, C).

    Raises:
        ValueError: If a unit does not hold a whole number of tokens.
    """
    B, C, H, W = x_BCHW.shape
    if H % grid[0] or W % grid[1] or not H or not W:
        raise ValueError(
            f'expected a map of sides that are multiples of the unit grid '
            f'{tuple(grid)}, got {(H, W)}; enlarge the mask units to the '
            "backbone's stride")
    side = H // grid[0], W // grid[1]
    x = x_BCHW.view(B, C, grid[0], side[0], grid[1], side[1])
    x = x.permute(0, 2, 4, 3, 5, 1)  # (B, Gh, Gw, y, x, C)
    return x.reshape(B, grid[0] * grid[1], side[0] * side[1], C)


def merge_tokens(x_BKTC: Tensor) -> Tensor:
    """Concatenate the channels of each 2x2 square of tokens in a unit.

    Args:
        x_BKTC (Tensor): Unit-major tokens, T a square of an even number.

    Returns:
        Tensor: Shape (B, K, T / 4, 4 * C), channels ordered
        ``c * 4 + 2 * dy + dx`` as ``nn.Unfold`` (and so OpenMMLab's
        ``PatchMerging``) orders them.
    """
    B, K, T, C = x_BKTC.shape
    half = int(T**0.5) // 2
    x = x_BKTC.view(B, K, half, 2, half, 2, C)
    x = x.permute(0, 1, 2, 4, 6, 3, 5)  # (B, K, y, x, C, dy, dx)
    return x.reshape(B, K, half * half, 4 * C)


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
    """Join the pixel vectors of all mask units, the inverse of `patchify`.

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
