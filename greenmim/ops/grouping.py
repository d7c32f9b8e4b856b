# Copyright (c) greenmim authors. All rights reserved.
"""Optimal grouping: from a mask to groups of whole windows.

Where the visible token at (y, x) of a stage's map belongs, for windows of
side ``w`` shifted by ``s``::

    window    = ((y + o) // w, (x + o) // w),  o = (w - s) mod w
    position  = ((y + o) mod w, (x + o) mod w)

which equals Swin's cyclic shift with its mask, since regions that were
wrapped around never attend to each other. All windows of all images that
share a plan are packed into groups (:mod:`.packing`); a plan is then a
permutation of tokens into slots, padded to full groups.

M masks, K visible units of T tokens: a plan covers ``N = M * K * T`` tokens
and has ``P = G * g`` slots, G groups of g.
"""
from dataclasses import dataclass
from typing import Tuple

import numpy as np
import torch
from torch import Tensor

from .mask_unit import VisibleLayout
from .packing import choose_group_size


@dataclass(frozen=True)
class Window:
    """The window attention of a block.

    Args:
        size (int): Side of a window in tokens, w.
        shift (int): Shift of the windows in tokens, s.
        table_size (int): Side of the window that the table of relative
            position biases was made for, at least ``size``.
    """
    size: int
    shift: int
    table_size: int

    def fit(self, map_size: Tuple[int, int], pad_small_map: bool) -> 'Window':
        """The window that is used on a map of ``map_size`` (H, W) tokens.

        A window that does not exceed the map's smaller side stays; one that
        does shrinks to it; and where the two are equal nothing is shifted.
        With ``pad_small_map`` window and shift stay as they are.
        """
        side = min(map_size)
        if pad_small_map or self.size < side:
            return self
        return Window(side, 0, self.table_size)


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """The permutation of visible tokens into groups, on the CPU.

    Args:
        token_of_slot (Tensor): Int64 (P,). Padding slots name token 0.
        slot_of_token (Tensor): Int64 (N,).
        window_of_slot (Tensor): Int32 (G, g), a number per window, -1 for
            padding.
        position_of_slot (Tensor): Int32 (G, g), ``y * (2t - 1) + x`` for the
            position (y, x) in the window and t the window's ``table_size``.
            The difference of two positions is then the distance of their
            entry from the middle of the bias table.
        table_size (int): t.
    """
    token_of_slot: Tensor
    slot_of_token: Tensor
    window_of_slot: Tensor
    position_of_slot: Tensor
    table_size: int

    @property
    def num_groups(self) -> int:
        """G."""
        return self.window_of_slot.shape[0]

    @property
    def group_size(self) -> int:
        """g."""
        return self.window_of_slot.shape[1]

    @property
    def fill_rate(self) -> float:
        """The share of slots that hold a token."""
        return len(self.slot_of_token) / len(self.token_of_slot)


def assign_windows(layout: VisibleLayout, side: int,
                   window: Window) -> Tuple[np.ndarray, np.ndarray]:
    """Window number and position of every visible token.

    Args:
        layout (VisibleLayout): The visible units.
        side (int): Tokens along a unit's side in this stage.
        window (Window): The window in use (see :meth:`Window.fit`).

    Returns:
        tuple[ndarray, ndarray]: Two int arrays of shape (M * K * T,) in
        unit-major order: the window's number, different for every image, and
        the position as in :class:`GroupPlan`.
    """
    rows, cols = layout.grid
    offset = (window.size - window.shift) % window.size
    units = layout.units.numpy()[..., None]
    token = np.arange(side * side)
    y = units // cols * side + token // side + offset
    x = units % cols * side + token % side + offset
    windows_y = (rows * side + offset - 1) // window.size + 1
    windows_x = (cols * side + offset - 1) // window.size + 1
    image = np.arange(layout.num_masks)[:, None, None]
    number = (image * windows_y + y // window.size) * windows_x
    number += x // window.size
    position = y % window.size * (2 * window.table_size - 1)
    position += x % window.size
    return number.ravel(), position.ravel()


def plan_groups(layout: VisibleLayout,
                side: int,
                window: Window,
                overhead: float = 0.) -> GroupPlan:
    """Pack the windows of one stage and shift into equal groups.

    Args:
        layout (VisibleLayout): The visible units.
        side (int): Tokens along a unit's side in this stage.
        window (Window): The window in use (see :meth:`Window.fit`).
        overhead (float): Cost of a token slot in units of one logit, see
            :mod:`.packing`. Defaults to 0.

    Returns:
        GroupPlan: The plan.
    """
    number, position = assign_windows(layout, side, window)
    counts = np.bincount(number)
    group_size, groups = choose_group_size(counts.tolist(), overhead)
    # Tokens sorted by window; a window's tokens take successive slots.
    order = np.argsort(number, kind='stable')
    first_slot = np.zeros(len(counts), dtype=np.int64)
    packed = np.fromiter((window for group in groups for window in group),
                         dtype=np.int64)
    sizes = counts[packed]
    starts = np.cumsum(sizes) - sizes  # slots, were there no padding
    lengths = [len(group) for group in groups]
    group_starts = starts[np.cumsum(lengths) - lengths]
    padding = np.arange(len(groups)) * group_size - group_starts
    first_slot[packed] = starts + np.repeat(padding, lengths)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    sorted_window = number[order]
    slots = first_slot[sorted_window] + rank

    num_slots = len(groups) * group_size
    token_of_slot = np.zeros(num_slots, dtype=np.int64)
    token_of_slot[slots] = order
    slot_of_token = np.empty(len(order), dtype=np.int64)
    slot_of_token[order] = slots
    window_of_slot = np.full(num_slots, -1, dtype=np.int32)
    window_of_slot[slots] = sorted_window
    position_of_slot = np.zeros(num_slots, dtype=np.int32)
    position_of_slot[slots] = position[order]
    shape = (len(groups), group_size)
    return GroupPlan(
        torch.from_numpy(token_of_slot), torch.from_numpy(slot_of_token),
        torch.from_numpy(window_of_slot).view(shape),
        torch.from_numpy(position_of_slot).view(shape), window.table_size)
