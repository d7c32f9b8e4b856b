# Copyright (c) greenmim authors. All rights reserved.
from torch import Tensor

from greenmim.ops import gather_units
from greenmim.ops.mask_unit import Grid


def visible_positions(embed: Tensor, units: Tensor, grid: Grid) -> Tensor:
    """Take the embeddings of the visible tokens out of those of the map.

    Args:
        embed (Tensor): Shape (1, H * W, C), the map's in row-major order.
        units (Tensor): Int64 (M, K), the visible units.
        grid (tuple[int, int]): The unit grid (Gh, Gw).

    Returns:
        Tensor: Shape (M, K, T, C).
    """
    num_units = grid[0] * grid[1]
    side = round((embed.shape[1] / num_units)**0.5)
    embed = embed.view(grid[0], side, grid[1], side, -1).transpose(1, 2)
    embed = embed.reshape(1, num_units, side * side, -1)
    return gather_units(embed.expand(len(units), -1, -1, -1), units)
