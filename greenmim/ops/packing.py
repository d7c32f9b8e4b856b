# Copyright (c) greenmim authors. All rights reserved.
"""Packing of unequal windows into equal groups (paper section 3.2).

Windows hold ``counts[i]`` visible tokens. Whole windows are put into ``n(g)``
groups of one size ``g``, whose attention costs ``n(g) * cost(g)``, see
:class:`GroupCost`.

Each group is filled as well as the remaining windows allow, by a subset-sum
dynamic programme whose table is one integer: bit ``t`` of ``reachable`` is
set when some windows sum to ``t``. It runs on the histogram of the counts,
since windows of equal count are interchangeable. Where a lower bound leaves
room for a group less, a short search looks for it; with up to eight windows
it is exhaustive.
"""
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

# A search that takes longer would cost more than the attention that it saves.
MAX_SEARCH_STEPS = 100


@dataclass(frozen=True)
class GroupCost:
    """What the attention of a group of g slots costs, in logits::

        cost(g) = (g rounded up to whole tiles)**2 + overhead * g

    With ``overhead = 0`` and tiles of 1 it is the attention cost of the paper.

    Args:
        overhead (float): Work of moving one token slot, padding included, in
            units of one logit. Defaults to 0.
        tile (int): Side of the squares of logits that the device computes as
            a whole. Defaults to 1.
        step (int): Group sizes are multiples of it. Defaults to 1.

    Raises:
        ValueError: If ``overhead`` is negative.
    """
    overhead: float = 0.
    tile: int = 1
    step: int = 1

    def __post_init__(self) -> None:
        if self.overhead < 0:
            raise ValueError(f'expected overhead >= 0, got {self.overhead}')

    def __call__(self, size: int) -> float:
        """The cost of a group of ``size`` slots."""
        return round_up(size, self.tile)**2 + self.overhead * size

    def least(self, num_tokens: int, size: int) -> float:
        """No groups of ``size`` or more slots hold the tokens at less."""
        return num_tokens * (size + self.overhead)


def round_up(number: int, step: int) -> int:
    """The multiple of ``step`` that is ``number`` or the next one."""
    return -(-number // step) * step


def pack_windows(counts: Sequence[int], group_size: int) -> List[List[int]]:
    """Pack windows into as few groups of ``group_size`` slots as possible.

    Args:
        counts (Sequence[int]): Visible tokens of every window; empty windows
            are left out of the result.
        group_size (int): Token slots of a group, g.

    Returns:
        list[list[int]]: The window numbers of every group.

    Raises:
        ValueError: If a count is negative or larger than ``group_size``.
    """
    counts = [int(count) for count in counts]
    if counts and not 0 <= min(counts) <= max(counts) <= group_size:
        raise ValueError(
            f'expected windows of 0 to group_size = {group_size} tokens, got '
            f'{min(counts)} to {max(counts)}; windows are never split')
    return _pack(counts, group_size)


def _pack(counts: List[int], group_size: int) -> List[List[int]]:
    groups = _fill_groups(counts, group_size)
    if len(groups) > min_groups(counts, group_size):
        fewest = min_groups_by_halves(counts, group_size)
        while len(groups) > fewest:
            better = _search(counts, group_size, len(groups) - 1)
            if better is None:
                break
            groups = better
    return groups


def min_groups(counts: Sequence[int], group_size: int) -> int:
    """A lower bound on the number of groups: by volume, and by windows of
    more than half a group, no two of which fit together."""
    volume = -(-sum(counts) // max(group_size, 1))
    return max(volume, sum(2 * count > group_size for count in counts))


def min_groups_by_halves(counts: Sequence[int], group_size: int) -> int:
    """A tighter lower bound (Martello and Toth, 1990).

    For every ``k`` up to half a group: windows of more than half a group need
    a group each, and windows of ``k`` or more tokens that are no larger than
    half a group do not fit beside windows of more than ``group_size - k``.
    """
    small = sorted(count for count in counts if 2 * count <= group_size)
    large = sorted(count for count in counts if 2 * count > group_size)
    volume_small, volume_large = sum(small), sum(large)
    alone, fewest = 0, 0
    for i, k in enumerate(small):
        while large and large[-1] > group_size - k:
            volume_large -= large.pop()
            alone += 1
        space = len(large) * group_size - volume_large
        more = -(-(volume_small - space) // group_size)
        fewest = max(fewest, alone + len(large) + max(0, more))
        volume_small -= k
    return fewest


def choose_group_size(
    counts: Sequence[int], cost: GroupCost = GroupCost()
) -> Tuple[int, List[List[int]]]:
    """Choose the group size of least cost, and the packing that has it.

    All sizes from the largest window upwards are compared. A size is packed
    only if its lower bound is below the best cost so far. The volume bound
    grows with g, which ends the search.

    Args:
        counts (Sequence[int]): Visible tokens of every window.
        cost (GroupCost): Cost of a group. Defaults to that of the paper.

    Returns:
        tuple[int, list[list[int]]]: g and the groups of window numbers.

    Raises:
        ValueError: If no window holds a token.
    """
    counts = [int(count) for count in counts]
    total, largest = sum(counts), max(counts, default=0)
    if largest == 0:
        raise ValueError('expected a window with at least one visible token, '
                         'got none')
    best_size = size = round_up(largest, cost.step)
    best_groups = _pack(counts, size)
    best_cost = len(best_groups) * cost(size)
    size += cost.step
    while cost.least(total, size) < best_cost:
        group_cost = cost(size)
        volume_bound = -(-total // size) * group_cost
        if (volume_bound < best_cost
                and min_groups(counts, size) * group_cost < best_cost):
            groups = _pack(counts, size)
            if len(groups) * group_cost < best_cost:
                best_size, best_groups = size, groups
                best_cost = len(groups) * group_cost
        size += cost.step
    return best_size, best_groups


def _fill_groups(counts: Sequence[int], group_size: int) -> List[List[int]]:
    """Fill one group after another: with the largest window left, then with
    the windows that fill the rest of the group best."""
    windows: Dict[int, List[int]] = {}
    for window, count in enumerate(counts):
        if count:
            windows.setdefault(count, []).append(window)
    values = sorted(windows, reverse=True)
    groups = []
    while values:
        largest = values[0]
        window = windows[largest].pop()
        pattern = _best_fill(values, windows, group_size - largest)
        groups.append([window] + [windows[count].pop() for count in pattern])
        pattern.append(largest)
        if windows[largest]:
            # If the same pattern is left, it fills the next group as well.
            repeats = min([
                len(windows[count]) // pattern.count(count)
                for count in pattern
            ])
            for _ in range(repeats):
                groups.append([windows[count].pop() for count in pattern])
        for count in set(pattern):
            if not windows[count]:
                values.remove(count)
    return groups


def _best_fill(values: Sequence[int], windows: Dict[int, List[int]],
               space: int) -> List[int]:
    """Subset sum: the counts of windows with the largest sum up to ``space``.

    ``values`` are the counts that occur, in descending order, and ``windows``
    the windows left of each.
    """
    if windows.get(space):
        return [space]
    reachable, within, full = 1, (1 << (space + 1)) - 1, 1 << space
    steps = []
    for count in values:
        if count < space:
            for _ in range(min(len(windows[count]), space // count)):
                steps.append((count, reachable))
                reachable |= (reachable << count) & within
            if reachable & full:
                break
    target = reachable.bit_length() - 1
    pattern = []
    for count, before in reversed(steps):
        if not before >> target & 1:
            pattern.append(count)
            target -= count
    return pattern


def _search(counts: Sequence[int], group_size: int,
            num_groups: int) -> Optional[List[List[int]]]:
    """Search for a packing into ``num_groups`` groups.

    The largest window left opens the next group. The group is then filled in
    every way that keeps the empty slots of all groups within their limit.

    Returns:
        list[list[int]] | None: A packing, or None if there is none or it is
        not found in ``MAX_SEARCH_STEPS``.
    """
    windows: Dict[int, List[int]] = {}
    for window, count in enumerate(counts):
        if count:
            windows.setdefault(count, []).append(window)
    values = sorted(windows, reverse=True)
    left = [len(windows[count]) for count in values]
    patterns: List[List[int]] = []
    steps = 0

    def next_group(empty: int) -> bool:
        for k, count in enumerate(values):
            if left[k]:
                left[k] -= 1
                patterns.append([count])
                if fill(k, group_size - count, empty):
                    return True
                patterns.pop()
                left[k] += 1
                return False
        return True

    def fill(k: int, space: int, empty: int) -> bool:
        """Fill the last group by windows of ``values[k:]``."""
        nonlocal steps
        steps += 1
        if steps > MAX_SEARCH_STEPS:
            return False
        while k < len(values) and not (left[k] and values[k] <= space):
            k += 1
        if k == len(values):
            return space <= empty and next_group(empty - space)
        volume = 0
        for j in range(k, len(values)):
            volume += values[j] * left[j]
            if volume >= space - empty:
                break
        else:
            return False
        count, pattern = values[k], patterns[-1]
        for taken in range(min(left[k], space // count), -1, -1):
            left[k] -= taken
            pattern.extend([count] * taken)
            if fill(k + 1, space - taken * count, empty):
                return True
            del pattern[len(pattern) - taken:]
            left[k] += taken
        return False

    if not next_group(num_groups * group_size - sum(counts)):
        return None
    return [[windows[count].pop() for count in pattern]
            for pattern in patterns]
