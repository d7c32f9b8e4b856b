# Copyright (c) greenmim authors. All rights reserved.
"""Optimal grouping: from a mask to groups of whole windows.

Where the visible token at (y, x) of a stage's map belongs, for windows of
side ``w`` shifted by ``s``::

    window    = ((y + o) // w, (x + o) // w),  o = (w - s) mod w
    position  = ((y + o) mod w, (x + o) mod w)

which equals Swin's cyclic shift with its mask, since regions that were
wrapped around never attend to each other. All windows of all images that
share a plan are packed into groups (:mod:`.packing`); a plan is then a
permutation of N tokens into P slots, which pads the groups to one size. The
letters are defined in :mod:`greenmim.ops`.
"""
from dataclasses import dataclass
from itertools import chain
from typing import List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .mask_unit import Grid, VisibleLayout
from .packing import GroupCost, choose_group_size, pack_windows, round_up


@dataclass(frozen=True)
class Window:
    """The window attention of a block.

    Args:
        size (int): Side of a window in tokens, w.
        shift (int): Shift of the windows in tokens, s.
        table_size (int): Side of the window that the table of relative
            position biases was made for, at least ``size``.
        pad_small_map (bool): Whether window and shift stay as they are on a
            smaller map, which the dense model pads. Defaults to False.
    """
    size: int
    shift: int
    table_size: int
    pad_small_map: bool = False

    def fit(self, map_size: Tuple[int, int]) -> 'Window':
        """The window that is used on a map of ``map_size`` (H, W) tokens.

        A window that does not exceed the map's smaller side stays; one that
        does shrinks to it; and where the two are equal nothing is shifted.
        With ``pad_small_map`` it always stays.
        """
        side = min(map_size)
        if self.pad_small_map or self.size < side:
            return self
        return Window(side, 0, self.table_size)


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """The permutation of visible tokens into groups.

    Args:
        table_size (int): The window's ``table_size``.
        token_of_slot (Tensor): Int64 (P,). Padding slots name token 0.
        slot_of_token (Tensor): Int64 (N,).
        window_of_slot (Tensor): Int32 (G, g), a number per window, -1 for
            padding.
        position_of_slot (Tensor): Int32 (G, g), ``y * (2 * table_size - 1) +
            x`` for the position (y, x) in the window. The difference of two
            positions is then the distance of their entry from the middle of
            the bias table.
    """
    table_size: int
    token_of_slot: Tensor
    slot_of_token: Tensor
    window_of_slot: Tensor
    position_of_slot: Tensor

    @property
    def _tensors(self) -> Tuple[Tensor, ...]:
        return (self.token_of_slot, self.slot_of_token, self.window_of_slot,
                self.position_of_slot)

    def __reduce__(self) -> tuple:
        # Tensors are sent to other processes as open files, arrays as bytes.
        arrays = [tensor.numpy() for tensor in self._tensors]
        return GroupPlan._from_arrays, (self.table_size, *arrays)

    @classmethod
    def _from_arrays(cls, table_size: int, *arrays: np.ndarray) -> 'GroupPlan':
        return cls(table_size, *map(torch.from_numpy, arrays))

    def to(self, device: torch.device) -> 'GroupPlan':
        """Move the plan, without waiting for the device."""
        moved = [x.to(device, non_blocking=True) for x in self._tensors]
        return GroupPlan(self.table_size, *moved)

    @staticmethod
    def move(plans: Sequence['GroupPlan'],
             device: torch.device) -> List['GroupPlan']:
        """Move plans in one copy, of int32, without waiting for the device.

        Every array begins at a multiple of 64 bytes, as kernels expect.
        """
        tensors = [
            tensor for pair in (slice(2), slice(2, 4)) for plan in plans
            for tensor in plan._tensors[pair]
        ]
        sizes = [round_up(tensor.numel(), 16) for tensor in tensors]
        packed = np.concatenate([
            np.resize(tensor.numpy().astype(np.int32), size)
            for tensor, size in zip(tensors, sizes)
        ])
        on_device = torch.from_numpy(packed).to(device, non_blocking=True)
        # Tokens and slots become int64, as they are multiplied by channels.
        half = len(tensors) // 2
        wide, narrow = on_device.split([sum(sizes[:half]), sum(sizes[half:])])
        parts = wide.long().split(sizes[:half]) + narrow.split(sizes[half:])
        moved = [
            part[:tensor.numel()].view(tensor.shape)
            for tensor, part in zip(tensors, parts)
        ]
        return [
            GroupPlan(plan.table_size, *moved[2 * i:2 * i + 2],
                      *moved[half + 2 * i:half + 2 * i + 2])
            for i, plan in enumerate(plans)
        ]

    @property
    def num_entries(self) -> int:
        """Entries of the bias table, R."""
        return (2 * self.table_size - 1)**2

    @property
    def middle(self) -> int:
        """The entry of the bias table for two tokens in one place."""
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
class WindowMaps:
    """Windows and positions of the tokens of several maps, whatever the mask.

    A map is a stage with one kind of window. The tokens that a unit has in
    all maps are concatenated, J of them, so that a mask is planned for all
    maps at once.

    Args:
        number (ndarray): Int (L, J), the window's number, counted through
            all maps.
        position (ndarray): Int32 (L, J), the position in the window as in
            :class:`GroupPlan`.
        token (ndarray): Int (J,), the token's number in its unit and map.
        tokens (ndarray): Int (J,), T of its map.
        windows (ndarray): Int (J,), windows of its map.
        first_window (ndarray): Int (J,), windows of the maps before.
        columns (list[slice]): The columns of every map.
        table_sizes (list[int]): ``table_size`` of every map's window.
    """
    number: np.ndarray
    position: np.ndarray
    token: np.ndarray
    tokens: np.ndarray
    windows: np.ndarray
    first_window: np.ndarray
    columns: List[slice]
    table_sizes: List[int]

    @classmethod
    def make(cls, grid: Grid, maps: Sequence[Tuple[int,
                                                   Window]]) -> 'WindowMaps':
        """Map the tokens of all units in unit-major order.

        Args:
            grid (tuple[int, int]): The unit grid (Gh, Gw).
            maps (Sequence[tuple[int, Window]]): Tokens along a unit's side
                and the window in use (see :meth:`Window.fit`).
        """
        rows, cols = grid
        unit = np.arange(rows * cols)[:, None]
        parts, columns, first_window, first_column = [], [], 0, 0
        for side, window in maps:
            offset = (window.size - window.shift) % window.size
            token = np.arange(side * side)
            y = unit // cols * side + token // side + offset
            x = unit % cols * side + token % side + offset
            windows_x = int(x.max()) // window.size + 1
            num_windows = (int(y.max()) // window.size + 1) * windows_x
            number = y // window.size * windows_x + x // window.size
            position = y % window.size * (2 * window.table_size - 1)
            position += x % window.size
            same = np.ones_like(token)
            parts.append(
                (first_window + number, position, token, same * len(token),
                 same * num_windows, same * first_window))
            columns.append(slice(first_column, first_column + len(token)))
            first_window += num_windows
            first_column += len(token)
        number, position, token, tokens, windows, first = (
            np.concatenate(part, axis=-1) for part in zip(*parts))
        return cls(number, position.astype(np.int32), token, tokens, windows,
                   first, columns, [window.table_size for _, window in maps])

    def counts(self, units: np.ndarray) -> List[np.ndarray]:
        """Visible tokens of every window, for many masks.

        Args:
            units (ndarray): Int (M, K), the visible units of every mask.

        Returns:
            list[ndarray]: Int (M, windows) for every map.
        """
        masks, counts = np.arange(len(units))[:, None], []
        for columns in self.columns:
            number = self.number[:, columns] - self.first_window[columns.start]
            windows = int(self.windows[columns.start])
            flat = masks * windows + number[units].reshape(len(units), -1)
            counts.append(
                np.bincount(flat.ravel(),
                            minlength=len(units) * windows).reshape(
                                len(units), windows))
        return counts


# The number and the size of a map's groups, (G, g).
Capacity = Tuple[int, int]


def plan_maps(
        layout: VisibleLayout,
        maps: WindowMaps,
        cost: GroupCost = GroupCost(),
        capacities: Optional[Sequence[Capacity]] = None) -> List[GroupPlan]:
    """Pack the windows of every map into equal groups.

    Args:
        layout (VisibleLayout): The visible units.
        maps (WindowMaps): The maps, of the layout's grid.
        cost (GroupCost): Cost of a group. Defaults to that of the paper.
        capacities (Sequence[tuple[int, int]], optional): Groups and slots of
            every map, whatever the mask. Groups may then be empty; a mask
            that they cannot hold gets more or larger ones. Defaults to None,
            those of the least cost for this mask.

    Returns:
        list[GroupPlan]: A plan for every map.
    """
    M, units = layout.num_masks, layout.units.numpy()
    number: np.ndarray = maps.number[units]  # (M, K, J)
    if M > 1:  # the windows of a map, image by image
        image = np.arange(M)[:, None, None]
        number += (M - 1) * maps.first_window + image * maps.windows
    local = (number - M * maps.first_window).ravel()  # in its map
    number = number.ravel()
    counts = np.bincount(number)

    packed: List[np.ndarray] = []
    lengths: List[int] = []  # windows of every group
    sizes: List[int] = []  # slots of every group
    num_groups: List[int] = []
    for i, columns in enumerate(maps.columns):
        first = M * int(maps.first_window[columns.start])
        stop = first + M * int(maps.windows[columns.start])
        occupied = first + counts[first:stop].nonzero()[0]
        held = counts[occupied].tolist()
        if capacities is None:
            size, groups = choose_group_size(held, cost)
        else:
            number_of_groups, size = capacities[i]
            size = max(size, round_up(max(held), cost.step))
            groups = pack_windows(held, size)
            groups += [[]] * (number_of_groups - len(groups))
        packed.append(occupied[list(chain.from_iterable(groups))])
        lengths += [len(group) for group in groups]
        sizes += [size] * len(groups)
        num_groups.append(len(groups))

    # Tokens in the order of their slots: map by map, group by group and in a
    # group window by window. The padding of a group follows its tokens.
    windows = np.concatenate(packed)
    rank = np.empty(len(counts), np.int64)
    rank[windows] = np.arange(len(windows))
    order = rank[number].argsort(kind='stable')
    ends = counts[windows].cumsum()[np.cumsum(lengths) - 1]
    slot_ends = np.cumsum(sizes)
    slots = np.arange(len(order))
    slots[ends[0]:] += (slot_ends - ends)[:-1].repeat(np.diff(ends))

    units_of_masks = np.arange(units.size)[:, None]
    token = (units_of_masks * maps.tokens + maps.token).ravel()
    token_of_slot = np.zeros(slot_ends[-1], np.int64)
    token_of_slot[slots] = token[order]
    slot = np.empty(len(order), np.int64)
    slot[order] = slots
    by_unit = slot.reshape(units.size, -1)
    window_of_slot = np.full(slot_ends[-1], -1, np.int32)
    window_of_slot[slots] = local[order]
    position_of_slot = np.zeros(slot_ends[-1], np.int32)
    position_of_slot[slots] = maps.position[units].ravel()[order]

    # The arrays of all plans are slices of four, one after another.
    slot_in_map = np.empty(len(order), np.int64)
    plans, start, first_group, first_token = [], 0, 0, 0
    for columns, table_size, length in zip(maps.columns, maps.table_sizes,
                                           num_groups):
        shape = (length, sizes[first_group])
        stop = start + shape[0] * shape[1]
        slots_of_map = by_unit[:, columns]
        last_token = first_token + slots_of_map.size
        slot_of_token = slot_in_map[first_token:last_token]
        np.subtract(
            slots_of_map, start, out=slot_of_token.reshape(slots_of_map.shape))
        plans.append(
            GroupPlan._from_arrays(
                table_size, token_of_slot[start:stop], slot_of_token,
                window_of_slot[start:stop].reshape(shape),
                position_of_slot[start:stop].reshape(shape)))
        start, first_token = stop, last_token
        first_group += length
    return plans


def plan_groups(layout: VisibleLayout,
                side: int,
                window: Window,
                cost: GroupCost = GroupCost()) -> GroupPlan:
    """Plan one map, see :func:`plan_maps`.

    Args:
        layout (VisibleLayout): The visible units.
        side (int): Tokens along a unit's side in this stage.
        window (Window): The window in use (see :meth:`Window.fit`).
        cost (GroupCost): Cost of a group. Defaults to that of the paper.
    """
    maps = WindowMaps.make(layout.grid, [(side, window)])
    return plan_maps(layout, maps, cost)[0]
