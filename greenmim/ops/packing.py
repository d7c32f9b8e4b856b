# Copyright (c) greenmim authors. All rights reserved.
"""Packing of unequal windows into equal groups (paper section 3.2).

Windows hold ``counts[i]`` visible tokens. Whole windows are put into groups
of one size ``g``; attention then costs

    cost(g) = n(g) * (g**2 + overhead * g)

for ``n(g)`` groups: ``g**2`` logits per group, and ``overhead`` times the
work of moving one token slot, padding included. With ``overhead = 0`` it is
the attention cost of the paper.

Each group is filled as well as the remaining windows allow, by a subset-sum
dynamic programme whose table is one integer: bit ``t`` of ``reachable`` is
set when some windows sum to ``t``. It runs on the histogram of the counts,
since windows of equal count are interchangeable. Where the packing of few
windows is not provably optimal by a lower bound, all packings are searched;
of many windows the result is seldom a group above the bound.
"""
from typing import Dict, List, Optional, Sequence, Tuple

# Up to this many windows the packing is optimal; beyond, the search would
# cost more than the attention that it saves.
MAX_SEARCHED_WINDOWS = 8


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
    groups = _fill_groups(counts, group_size)
    if sum(map(bool, counts)) <= MAX_SEARCHED_WINDOWS:
        for num_groups in range(min_groups(counts, group_size), len(groups)):
            better = _search(counts, group_size, num_groups)
            if better is not None:
                return better
    return groups


def min_groups(counts: Sequence[int], group_size: int) -> int:
    """A lower bound on the number of groups: by volume, and by windows of
    more than half a group, no two of which fit together."""
    volume = -(-sum(counts) // max(group_size, 1))
    return max(volume, sum(2 * count > group_size for count in counts))


def choose_group_size(counts: Sequence[int],
                      overhead: float = 0.) -> Tuple[int, List[List[int]]]:
    """Choose the group size of least cost, and the packing that has it.

    All sizes from the largest window upwards are compared, those whose lower
    bound is not below the best cost so far without packing them. The volume
    bound grows with g, which ends the search.

    Args:
        counts (Sequence[int]): Visible tokens of every window.
        overhead (float): Cost of a token slot in units of one logit.
            Defaults to 0.

    Returns:
        tuple[int, list[list[int]]]: g and the groups of window numbers.

    Raises:
        ValueError: If no window holds a token or ``overhead`` is negative.
    """
    counts = [int(count) for count in counts]
    total, largest = sum(counts), max(counts, default=0)
    if largest == 0:
        raise ValueError('expected a window with at least one visible token, '
                         'got none')
    if overhead < 0:
        raise ValueError(f'expected overhead >= 0, got {overhead}')
    best_size, best_groups = largest, pack_windows(counts, largest)
    best_cost = len(best_groups) * (largest + overhead) * largest
    size = largest + 1
    while total * (size + overhead) < best_cost:
        slots_cost = (size + overhead) * size
        if min_groups(counts, size) * slots_cost < best_cost:
            groups = pack_windows(counts, size)
            if len(groups) * slots_cost < best_cost:
                best_size, best_groups = size, groups
                best_cost = len(groups) * slots_cost
        size += 1
    return best_size, best_groups


def _fill_groups(counts: Sequence[int], group_size: int) -> List[List[int]]:
    """Fill one group after another: the largest window left, then the
    windows that fill the rest of the group best."""
    windows: Dict[int, List[int]] = {}
    for window, count in enumerate(counts):
        if count:
            windows.setdefault(count, []).append(window)
    values = sorted(windows, reverse=True)
    groups = []
    while values:
        largest = values[0]
        group = [windows[largest].pop()]
        pattern = _best_fill(values, windows, group_size - largest)
        for count in pattern:
            group.append(windows[count].pop())
        groups.append(group)
        # A pattern that is left whole fills the next group as well.
        pattern.append(largest)
        needed = {count: pattern.count(count) for count in pattern}
        repeats = min(
            [len(windows[count]) // needed[count] for count in needed])
        for _ in range(repeats):
            groups.append([windows[count].pop() for count in pattern])
        for count in needed:
            if not windows[count]:
                values.remove(count)
    return groups


def _best_fill(values: Sequence[int], windows: Dict[int, List[int]],
               space: int) -> List[int]:
    """Subset sum: the counts of windows with the largest sum up to ``space``.

    Args:
        values (Sequence[int]): The counts that occur, in descending order.
        windows (dict[int, list[int]]): The windows left of every count.
        space (int): The largest sum allowed.
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
    """Search all packings into ``num_groups`` groups, largest window first.

    Returns:
        list[list[int]] | None: A packing, or None if there is none.
    """
    order = sorted((window for window, count in enumerate(counts) if count),
                   key=lambda window: -counts[window])
    space = [group_size] * num_groups
    groups: List[List[int]] = [[] for _ in range(num_groups)]

    def place(depth: int) -> bool:
        if depth == len(order):
            return True
        window, tried = order[depth], set()
        for group in range(num_groups):
            # Groups with equal space left lead to equal results.
            if space[group] in tried or space[group] < counts[window]:
                continue
            tried.add(space[group])
            space[group] -= counts[window]
            groups[group].append(window)
            if place(depth + 1):
                return True
            groups[group].pop()
            space[group] += counts[window]
        return False

    return groups if place(0) else None
