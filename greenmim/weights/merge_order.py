# Copyright (c) greenmim authors. All rights reserved.
"""The orders in which implementations concatenate merged channels.

Patch merging joins the C channels of a 2x2 square of tokens to one vector of
4 * C. An order is given by the axes of this vector, outermost first: the row
(y) and the column (x) of a token in the square, and its channel (c).
"""
import torch
from torch import Tensor

MERGE_ORDERS = {
    'microsoft': 'xyc',  # Microsoft's Swin; GreenMIM since its last commit
    'greenmim-2022': 'yxc',  # GreenMIM as of 2022
    'openmmlab': 'cyx',  # MMCV's PatchMerging, and ours
}


def merge_permutation(channels: int,
                      source: str,
                      target: str = 'openmmlab') -> Tensor:
    """Where a merged vector in one order finds its values in another.

    ``merged_target = merged_source[..., permutation]``; the parameters of a
    norm and the input columns of a weight are taken over in the same way.

    Returns:
        Tensor: Int64 of shape (4 * C, ).
    """
    for order in source, target:
        if order not in MERGE_ORDERS:
            raise ValueError(f'expected a merge order of {[*MERGE_ORDERS]}, '
                             f'got {order!r}')
    axes = MERGE_ORDERS[source]
    places = torch.arange(4 * channels).view(
        [channels if axis == 'c' else 2 for axis in axes])
    return places.permute([axes.index(axis)
                           for axis in MERGE_ORDERS[target]]).flatten()
