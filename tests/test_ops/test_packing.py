# Copyright (c) greenmim authors. All rights reserved.
"""Packing against exhaustive search on small cases."""
import itertools
import random
import time
from functools import lru_cache
from typing import Iterator, List, Sequence, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenmim.ops.packing import (GroupCost, choose_group_size, min_groups,
                                  min_groups_by_halves, pack_windows)

pytestmark = pytest.mark.timeout(120)  # a packing that never ends is a bug


def partitions(items: Tuple[int, ...]) -> Iterator[List[List[int]]]:
    """All ways to put ``items`` into unordered groups."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for groups in partitions(rest):
        yield [[first]] + groups
        for i in range(len(groups)):
            yield groups[:i] + [[first] + groups[i]] + groups[i + 1:]


@lru_cache(maxsize=None)
def brute_force(counts: Tuple[int, ...]) -> Tuple[Tuple[int, int], ...]:
    """(largest sum of a group, number of groups) of every partition."""
    windows = tuple(count for count in counts if count)
    return tuple({(max(map(sum, groups)), len(groups))
                  for groups in partitions(windows)})


def fewest_groups(counts: Sequence[int], group_size: int) -> int:
    return min(num for largest, num in brute_force(tuple(sorted(counts)))
               if largest <= group_size)


def least_cost(counts: Sequence[int], overhead: float = 0.) -> float:
    """The least n * (g**2 + overhead * g) of all partitions and sizes.

    A larger g than the largest group only costs more, so g is that.
    """
    return min(num * (size**2 + overhead * size)
               for size, num in brute_force(tuple(sorted(counts))))


def check_packing(counts: Sequence[int], group_size: int,
                  groups: List[List[int]]) -> None:
    """Every window that holds a token is in exactly one group, whole."""
    packed = sorted(itertools.chain.from_iterable(groups))
    assert packed == [i for i, count in enumerate(counts) if count]
    for group in groups:
        assert 0 < sum(counts[i] for i in group) <= group_size


def test_all_small_cases():
    """All multisets of up to 5 windows of 1 to 6 tokens, all group sizes."""
    cases = 0
    for num in range(1, 6):
        for counts in itertools.combinations_with_replacement(
                range(1, 7), num):
            for group_size in range(max(counts), sum(counts) + 2):
                groups = pack_windows(counts, group_size)
                check_packing(counts, group_size, groups)
                assert len(groups) == fewest_groups(counts, group_size)
                cases += 1
            for overhead in (0., 3., 50.):
                size, groups = choose_group_size(counts, GroupCost(overhead))
                check_packing(counts, size, groups)
                cost = len(groups) * (size**2 + overhead * size)
                assert cost == least_cost(counts, overhead)
    assert cases > 3000


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 49), min_size=1, max_size=8).filter(any),
    st.integers(0, 120), st.sampled_from([0., 1., 16., 64.]))
def test_random_small_cases(counts, slack, overhead):
    """Eight windows of up to 49 tokens, empty ones among them."""
    group_size = max(counts) + slack
    groups = pack_windows(counts, group_size)
    check_packing(counts, group_size, groups)
    assert len(groups) == fewest_groups(counts, group_size)
    assert min_groups(counts, group_size) <= len(groups)
    assert min_groups_by_halves(counts, group_size) <= len(groups)

    size, groups = choose_group_size(counts, GroupCost(overhead))
    check_packing(counts, size, groups)
    cost = len(groups) * (size**2 + overhead * size)
    assert cost == pytest.approx(least_cost(counts, overhead), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 196), max_size=300), st.integers(0, 400))
def test_random_large_cases(counts, slack):
    """Many windows: a valid packing, near the lower bound."""
    group_size = max(counts, default=0) + slack + 1
    groups = pack_windows(counts, group_size)
    check_packing(counts, group_size, groups)
    assert min_groups(counts, group_size) <= len(groups)
    # no two groups could be one
    fills = sorted(sum(counts[i] for i in group) for group in groups)
    if len(fills) > 1:
        assert fills[0] + fills[1] > group_size


def test_the_chosen_size_is_the_best_of_all_sizes():
    """Many windows: no other g is cheaper, packed by the same function."""
    rng = random.Random(0)
    for _ in range(10):
        counts = [rng.randint(0, 25) for _ in range(rng.randint(9, 25))]
        for overhead in (0., 8.):
            size, groups = choose_group_size(counts, GroupCost(overhead))
            check_packing(counts, size, groups)
            cost = len(groups) * (size**2 + overhead * size)
            for other in range(max(counts), sum(counts) + 1):
                num = len(pack_windows(counts, other))
                assert cost <= num * (other**2 + overhead * other)


@pytest.mark.parametrize('counts, group_size, num_groups', [
    ([], 5, 0),
    ([0, 0, 0], 5, 0),
    ([0], 0, 0),
    ([], 0, 0),
    ([5], 5, 1),
    ([5], 1000, 1),
    ([0, 3, 0], 3, 1),
    ([4] * 7, 4, 7),
    ([4] * 7, 7, 7),
    ([4] * 7, 8, 4),
    ([1] * 100, 100, 1),
    ([6, 5, 5, 4, 4, 3, 3], 10, 3),
])
def test_edge_cases(counts, group_size, num_groups):
    groups = pack_windows(counts, group_size)
    check_packing(counts, group_size, groups)
    assert len(groups) == num_groups


def test_one_window_and_equal_windows_need_no_padding():
    assert choose_group_size([37]) == (37, [[0]])
    assert choose_group_size([0, 37, 0]) == (37, [[1]])
    size, groups = choose_group_size([49] * 64)
    assert size == 49 and len(groups) == 64


@pytest.mark.parametrize('counts, group_size', [([3, 5, 2], 4), ([1], 0),
                                                ([2], -1), ([-1, 2], 4)])
def test_windows_that_cannot_be_packed(counts, group_size):
    """A window larger than the group raises, and does not loop for ever."""
    with pytest.raises(ValueError, match='expected.*got'):
        pack_windows(counts, group_size)


@pytest.mark.parametrize('counts, overhead, message', [
    ([], 0., 'at least one'),
    ([0], 0., 'at least one'),
    ([0, 0], 0., 'at least one'),
    ([3, 4], -1., 'overhead'),
])
def test_what_has_no_group_size(counts, overhead, message):
    with pytest.raises(ValueError, match=message):
        choose_group_size(counts, GroupCost(overhead))


def test_numbers_in_any_order_give_the_same_groups():
    """The number of groups depends on the counts, not on their order."""
    rng = random.Random(1)
    counts = [rng.randint(0, 49) for _ in range(81)]
    size, groups = choose_group_size(counts)
    assert (size, groups) == choose_group_size(list(counts))
    for _ in range(5):
        rng.shuffle(counts)
        other_size, other_groups = choose_group_size(counts)
        assert (other_size, len(other_groups)) == (size, len(groups))


@pytest.mark.parametrize(
    'make', [
        lambda rng: [rng.randint(0, 49) for _ in range(3000)],
        lambda rng: [rng.randint(0, 196) for _ in range(3000)],
        lambda rng: [1] * 20000,
        lambda rng: [1, 50000],
        lambda rng: [2**i for i in range(17)],
        lambda rng: [50] + [33] * 500,
        lambda rng: [997, 991, 983, 977, 971, 967, 953, 947],
    ],
    ids=['w7', 'w14', 'ones', 'giant', 'powers', 'thirds', 'primes'])
def test_time_is_bounded(make):
    """Far above any real map, so a loop that grows or hangs is seen."""
    counts = make(random.Random(0))
    start = time.perf_counter()
    size, groups = choose_group_size(counts)
    assert time.perf_counter() - start < 20
    check_packing(counts, size, groups)
