# Copyright (c) greenmim authors. All rights reserved.
"""Fixed numbers and sizes of groups, whatever the mask.

On a GPU it pays that the tensors of every step have the same shapes: memory
is reused, kernels are chosen once, and steps can be captured. A map then has
as many groups as all but the rarest masks need, and most masks leave some of
their slots empty.

How many that is follows from masks that the sampler draws, before the run.
The letters are defined in :mod:`greenmim.ops`.
"""
from typing import Callable, List, Sequence

import numpy as np

from .grouping import Capacity
from .packing import GroupCost, min_groups, pack_windows, round_up

# Masks that are drawn. What one of them needs is left out of account, so that
# fewer than one mask of 10^4 exceeds the capacity.
MASKS = 20000
# Tokens of a map in all drawn masks; of large maps fewer masks are drawn.
MAX_TOKENS = 2 * 10**7
# Draws for plans of a mask for every image, whose sum hardly varies.
BATCHES = 16
# Windows times groups above which a mask is packed by itself: first fit would
# take as many steps.
MAX_STEPS = 2500


def choose_capacity(counts_MW: np.ndarray, cost: GroupCost) -> Capacity:
    """The capacity of least cost that holds all masks but the rarest.

    Args:
        counts_MW (ndarray): Int (M, W), the visible tokens of every window of
            a map, for M masks that were drawn.
        cost (GroupCost): Cost of a group.

    Returns:
        tuple[int, int]: Groups and slots of a group, (G, g).
    """
    size = round_up(_all_but_rare(counts_MW.max(1)), cost.step)
    tokens = int(counts_MW[0].sum())  # the same for all masks
    best, best_cost = (0, 0), float('inf')
    while cost.least(tokens, size) < best_cost:
        fewest = max(
            min_groups(counts.tolist(), size) for counts in counts_MW[:BATCHES]
            if counts.max() <= size)
        if fewest * cost(size) < best_cost:
            groups = most_groups(counts_MW, size)
            if groups * cost(size) < best_cost:
                best, best_cost = (groups, size), groups * cost(size)
        size += cost.step
    return best


def most_groups(counts_MW: np.ndarray, size: int) -> int:
    """Groups of ``size`` slots that all masks but the rarest need."""
    tokens, windows = int(counts_MW[0].sum()), counts_MW.shape[1]
    counts_MW = counts_MW[counts_MW.max(1) <= size]
    if tokens <= size:
        return 1
    if windows * (tokens // size + 1) <= MAX_STEPS:
        groups = first_fit(counts_MW, size)
    else:
        groups = np.array([
            len(pack_windows(counts.tolist(), size))
            for counts in counts_MW[:BATCHES]
        ])
    tail = int(np.ceil(groups.mean() + 5 * groups.std()))
    return max(_all_but_rare(groups), tail if len(groups) < MASKS // 2 else 0)


def _all_but_rare(numbers: np.ndarray) -> int:
    """What all numbers but one of ``MASKS`` do not exceed."""
    return int(np.sort(numbers)[-1 - len(numbers) // MASKS])


def first_fit(counts_MW: np.ndarray, size: int) -> np.ndarray:
    """Groups of every mask, each window in the first group that has room.

    The windows come in descending order. :func:`pack_windows` rarely needs
    more groups; here all masks are packed at once.
    """
    counts = -np.sort(-counts_MW, axis=1)
    room: List[np.ndarray] = []
    for count in counts.T:
        if not count.any():
            break
        left = count.copy()  # what is yet to be placed
        for group in room:
            fits = group >= left
            group -= np.where(fits, left, 0)
            left[fits] = 0
        if left.any():
            room.append(size - left)
    used = [(group < size).astype(int) for group in room]
    return np.sum(used, axis=0)


def choose_capacities(draw: Callable[[int], Sequence[np.ndarray]],
                      num_masks: int,
                      num_tokens: int,
                      cost: GroupCost,
                      most_draws: int = MASKS) -> List[Capacity]:
    """Capacities of all maps, by masks that are drawn.

    Args:
        draw (Callable): Draws masks of one image, and returns the visible
            tokens of every window, int (n, windows), for every map.
        num_masks (int): Masks that a plan covers, M.
        num_tokens (int): Visible tokens of an image in the largest map.
        cost (GroupCost): Cost of a group.
        most_draws (int): Masks to draw at most. Defaults to ``MASKS``.
    """
    number = min(most_draws, MAX_TOKENS // num_tokens) // num_masks
    number = max(number, BATCHES)
    return [
        choose_capacity(counts.reshape(number, -1), cost)
        for counts in draw(number * num_masks)
    ]
