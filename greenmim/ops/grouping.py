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
from itertools import chain
from typing import Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from .mask_unit import Grid, VisibleLayout
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
    """The permutation of visible tokens into groups.

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

    def __reduce__(self) -> tuple:
        # Tensors travel between processes as open files, one each; arrays
        # as plain bytes.
        arrays = (self.token_of_slot.numpy(), self.slot_of_token.numpy(),
                  self.window_of_slot.numpy(), self.position_of_slot.numpy())
        return GroupPlan._from_arrays, (*arrays, self.table_size)

    @classmethod
    def _from_arrays(cls, token_of_slot: np.ndarray, slot_of_token: np.ndarray,
                     window_of_slot: np.ndarray, position_of_slot: np.ndarray,
                     table_size: int) -> 'GroupPlan':
        return cls(
            torch.from_numpy(token_of_slot), torch.from_numpy(slot_of_token),
            torch.from_numpy(window_of_slot),
            torch.from_numpy(position_of_slot), table_size)

    def to(self, device: torch.device) -> 'GroupPlan':
        """Move the plan, without waiting for the device."""
        return GroupPlan(
            self.token_of_slot.to(device, non_blocking=True),
            self.slot_of_token.to(device, non_blocking=True),
            self.window_of_slot.to(device, non_blocking=True),
            self.position_of_slot.to(device, non_blocking=True),
            self.table_size)

    @property
    def num_entries(self) -> int:
        """Entries of the bias table, R."""
        return (2 * self.table_size - 1)**2

    @property
    def middle(self) -> int:
        """The entry of the bias table that stands for no distance."""
        return self.num_entries // 2

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


@dataclass(frozen=True, eq=False)
class WindowMap:
    """Window and position of every token of a map, whatever the mask.

    Args:
        number (ndarray): Int (L, T), the window's number in an image.
        position (ndarray): Int (L, T), the position in the window as in
            :class:`GroupPlan`.
        num_windows (int): Windows of an image.
        table_size (int): t of :class:`GroupPlan`.
    """
    number: np.ndarray
    position: np.ndarray
    num_windows: int
    table_size: int

    @classmethod
    def make(cls, grid: Grid, side: int, window: Window) -> 'WindowMap':
        """Map the tokens of all units in unit-major order.

        Args:
            grid (tuple[int, int]): The unit grid (Gh, Gw).
            side (int): Tokens along a unit's side in this stage.
            window (Window): The window in use (see :meth:`Window.fit`).
        """
        rows, cols = grid
        offset = (window.size - window.shift) % window.size
        unit = np.arange(rows * cols)[:, None]
        token = np.arange(side * side)
        y = unit // cols * side + token // side + offset
        x = unit % cols * side + token % side + offset
        windows_y = int(y.max()) // window.size + 1
        windows_x = int(x.max()) // window.size + 1
        number = y // window.size * windows_x + x // window.size
        position = y % window.size * (2 * window.table_size - 1)
        position += x % window.size
        return cls(number, position.astype(np.int32), windows_y * windows_x,
                   window.table_size)


def plan_groups(layout: VisibleLayout,
                side: int,
                window: Window,
                overhead: float = 0.,
                window_map: Optional[WindowMap] = None) -> GroupPlan:
    """Pack the windows of one stage and shift into equal groups.

    Args:
        layout (VisibleLayout): The visible units.
        side (int): Tokens along a unit's side in this stage.
        window (Window): The window in use (see :meth:`Window.fit`).
        overhead (float): Cost of a token slot in units of one logit, see
            :mod:`.packing`. Defaults to 0.
        window_map (WindowMap, optional): The map of these arguments, where it
            is at hand. Defaults to None.

    Returns:
        GroupPlan: The plan.
    """
    if window_map is None:
        window_map = WindowMap.make(layout.grid, side, window)
    units = layout.units.numpy()
    number = window_map.number[units]
    if layout.num_masks > 1:
        image = np.arange(layout.num_masks)[:, None, None]
        number = number + image * window_map.num_windows
    number = number.ravel()
    counts = np.bincount(number)
    occupied = counts.nonzero()[0]
    group_size, groups = choose_group_size(counts[occupied].tolist(), overhead)
    lengths = [len(group) for group in groups]
    packed = occupied[list(chain.from_iterable(groups))]

    # Tokens in the order of their slots: group by group, and in a group window
    # by window. The padding of a group stands behind its tokens.
    rank = np.empty(len(counts), np.int64)
    rank[packed] = np.arange(len(packed))
    order = rank[number].argsort(kind='stable')
    ends = counts[packed].cumsum()[np.cumsum(lengths) - 1]
    padding = np.arange(1, len(groups) + 1) * group_size - ends
    slots = np.arange(len(order))
    slots[ends[0]:] += padding[:-1].repeat(np.diff(ends))

    num_slots = len(groups) * group_size
    token_of_slot = np.zeros(num_slots, np.int64)
    token_of_slot[slots] = order
    slot_of_token = np.empty(len(order), np.int64)
    slot_of_token[order] = slots
    window_of_slot = np.full(num_slots, -1, np.int32)
    window_of_slot[slots] = number[order]
    position_of_slot = np.zeros(num_slots, np.int32)
    position_of_slot[slots] = window_map.position[units].ravel()[order]
    shape = (len(groups), group_size)
    return GroupPlan._from_arrays(token_of_slot, slot_of_token,
                                  window_of_slot.reshape(shape),
                                  position_of_slot.reshape(shape),
                                  window_map.table_size)
