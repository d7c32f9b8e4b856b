# Copyright (c) greenmim authors. All rights reserved.
"""The orders in which implementations concatenate merged channels.

Patch merging joins the C channels of a 2x2 square of tokens, at row dy and
column dx, to one vector of 4 * C. Channel c of neighbour (dy, dx) goes to

    microsoft       (2 * dx + dy) * C + c    Microsoft's Swin, and GreenMIM
                                             since its last commit
    greenmim-2022   (2 * dy + dx) * C + c    GreenMIM as of 2022
    openmmlab       c * 4 + 2 * dy + dx      MMCV's PatchMerging, and ours
"""
import torch
from torch import Tensor

MERGE_ORDERS = ('microsoft', 'greenmim-2022', 'openmmlab')


def merge_permutation(channels: int,
                      source: str,
                      target: str = 'openmmlab') -> Tensor:
    """Where a merged vector in one order finds its values in another.

    ``merged_target = merged_source[..., permutation]``; the parameters of a
    norm and the input columns of a weight are taken over in the same way.

    Returns:
        Tensor: Int64 of shape (4 * C, ).
    """
    permutation = torch.empty(4 * channels, dtype=torch.long)
    permutation[_places(channels, target)] = _places(channels, source)
    return permutation


def _places(channels: int, order: str) -> Tensor:
    """Places of the channels (dy, dx, c), flattened, in a merged vector."""
    dy = torch.arange(2)[:, None, None]
    dx = torch.arange(2)[:, None]
    c = torch.arange(channels)
    if order == 'microsoft':
        places = (2 * dx + dy) * channels + c
    elif order == 'greenmim-2022':
        places = (2 * dy + dx) * channels + c
    elif order == 'openmmlab':
        places = c * 4 + 2 * dy + dx
    else:
        raise ValueError(
            f'expected a merge order of {MERGE_ORDERS}, got {order!r}')
    return places.flatten()
