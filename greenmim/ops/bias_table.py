# Copyright (c) greenmim authors. All rights reserved.
"""Tables of relative position biases for windows of another size.

A window of w x w tokens has (2 * w - 1)**2 offsets between two tokens, in
row-major order, and a bias for each offset and head.
"""
from torch import Tensor
from torch.nn import functional as F


def bias_table_window(table: Tensor) -> int:
    """The window of a table of relative position biases.

    Args:
        table (Tensor): Shape ((2 * w - 1)**2, num_heads).

    Returns:
        int: The side of the window in tokens, w.

    Raises:
        ValueError: If this is no table of a square window.
    """
    side = round(table.shape[0]**0.5)
    if table.ndim != 2 or side**2 != table.shape[0] or side % 2 == 0:
        raise ValueError(
            'expected a bias table of shape ((2 * window - 1)**2, heads), '
            f'got {tuple(table.shape)}')
    return (side + 1) // 2


def resize_bias_table(table: Tensor, window: int) -> Tensor:
    """Interpolate a table for another window, bicubically, head by head.

    The table is stretched as an image is, with offset zero in its centre: what
    Swin's own code and MMDetection do on loading.

    Args:
        table (Tensor): Shape ((2 * w - 1)**2, num_heads).
        window (int): The new window.

    Returns:
        Tensor: Shape ((2 * window - 1)**2, num_heads), same dtype.

    Raises:
        ValueError: If this is no table of a square window.
    """
    side = 2 * bias_table_window(table) - 1
    if window == (side + 1) // 2:
        return table
    maps = table.T.reshape(1, -1, side, side).double()
    size = (2 * window - 1, 2 * window - 1)
    maps = F.interpolate(maps, size, mode='bicubic', align_corners=False)
    return maps.flatten(2)[0].T.to(table.dtype).contiguous()
