# Copyright (c) greenmim authors. All rights reserved.
import torch
from torch import Tensor

from .mask_unit import Grid


def sincos_positions(grid: Grid, dims: int, dtype: torch.dtype,
                     device: torch.device) -> Tensor:
    r"""Fixed 2-D sine-cosine positions of a grid, as MAE defines them.

    With :math:`q` = ``dims`` / 4 and
    :math:`\omega_i = 10000^{-i / q}, i = 0, \dots, q - 1`, the cell in row
    :math:`y` and column :math:`x` has the vector

    .. math::
        [\sin(x \omega), \cos(x \omega), \sin(y \omega), \cos(y \omega)].

    MMPretrain's ``build_2d_sincos_position_embedding`` has the two halves
    the other way round, and orders the cells of a non-square grid by columns.

    Args:
        grid (tuple[int, int]): Height and width of the grid.
        dims (int): Length of a position's vector, a multiple of 4.
        dtype (torch.dtype): Type to compute in.
        device (torch.device): Device to compute on.

    Returns:
        Tensor: Shape (height * width, dims), cells in row-major order.
    """
    height, width = grid
    quarter = dims // 4
    exponent = torch.arange(quarter, dtype=dtype, device=device) / quarter
    omega = 10000**-exponent
    x = torch.arange(width, dtype=dtype, device=device)[:, None] * omega
    y = torch.arange(height, dtype=dtype, device=device)[:, None] * omega
    x = torch.cat([x.sin(), x.cos()], dim=1)
    y = torch.cat([y.sin(), y.cos()], dim=1)
    x = x[None].expand(height, -1, -1)
    y = y[:, None].expand(-1, width, -1)
    return torch.cat([x, y], dim=2).flatten(0, 1)
