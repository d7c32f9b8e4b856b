# Copyright (c) greenmim authors. All rights reserved.
"""Plans against explicit loops over tokens."""
from collections import Counter, defaultdict

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from greenmim.models.masking import random_mask
from greenmim.ops import VisibleLayout, Window, plan_groups
from greenmim.ops.packing import GroupCost
from tests.backbones.swin_twin import window_ids, window_of_map


def tokens_by_loops(mask, side, window, shift):
    """(image, window, y, x) of every visible token in unit-major order."""
    num, rows, cols = mask.shape
    ids = window_ids(rows * side, cols * side, window, shift)
    tokens = []
    for m in range(num):
        for row in range(rows):
            for col in range(cols):
                if mask[m, row, col]:
                    continue
                for dy in range(side):
                    for dx in range(side):
                        y, x = row * side + dy, col * side + dx
                        tokens.append((m, int(ids[y, x]), y, x))
    return tokens


def check_plan(plan, tokens, table_size):
    """Everything that a plan promises."""
    G, g = plan.num_groups, plan.group_size
    N, P = len(tokens), G * g
    assert plan.window_of_slot.shape == plan.position_of_slot.shape == (G, g)
    assert plan.slot_of_token.shape == (N, )
    assert plan.token_of_slot.shape == (P, )
    assert plan.slot_of_token.dtype == torch.int64
    assert plan.token_of_slot.dtype == torch.int64
    assert plan.fill_rate == N / P
    assert plan.table_size == table_size

    # a permutation into slots, and padding everywhere else
    slots = plan.slot_of_token.tolist()
    assert len(set(slots)) == N and 0 <= min(slots) and max(slots) < P
    assert plan.token_of_slot[plan.slot_of_token].tolist() == list(range(N))
    window_of_slot = plan.window_of_slot.flatten().tolist()
    padding = set(range(P)) - set(slots)
    assert padding == {i for i, w in enumerate(window_of_slot) if w < 0}
    assert 0 <= int(plan.token_of_slot.min())
    assert int(plan.token_of_slot.max()) < N

    # the plan's windows are those of the loops, and each is in one group
    number_of = {}
    groups_of = defaultdict(set)
    for slot, token in zip(slots, tokens):
        number = number_of.setdefault(token[:2], window_of_slot[slot])
        assert number == window_of_slot[slot]
        groups_of[token[:2]].add(slot // g)
    assert len(set(number_of.values())) == len(number_of)
    assert all(len(groups) == 1 for groups in groups_of.values())
    # a group without tokens would be wasted
    assert {slot // g for slot in slots} == set(range(G))
    # positions differ by the distance in the bias table
    position = plan.position_of_slot.flatten().tolist()
    stride = 2 * table_size - 1
    members = defaultdict(list)
    for slot, token in zip(slots, tokens):
        members[token[:2]].append((position[slot], token[2], token[3]))
    for pairs in members.values():
        first, y0, x0 = pairs[0]
        for value, y, x in pairs:
            assert value - first == (y - y0) * stride + x - x0
            assert 0 <= value < table_size * stride


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4),
    st.sampled_from([1, 2, 4, 8]), st.integers(1, 15), st.booleans(),
    st.booleans(), st.floats(0, 0.95), st.integers(0, 2**16))
def test_plan_equals_loops(num, rows, cols, side, window, shifted, pad, ratio,
                           seed):
    generator = torch.Generator().manual_seed(seed)
    ratio = min(ratio, 1 - 1 / (rows * cols))
    mask = random_mask(num, (rows, cols), ratio, generator)
    shift = window // 2 if shifted else 0
    fitted = Window(window, shift, window, pad).fit((rows * side, cols * side))
    assert (fitted.size,
            fitted.shift) == window_of_map(rows * side, cols * side, window,
                                           shift, pad)
    assert fitted.table_size == window
    plan = plan_groups(VisibleLayout.from_mask(mask), side, fitted)
    tokens = tokens_by_loops(mask, side, fitted.size, fitted.shift)
    check_plan(plan, tokens, window)
    counts = Counter(token[:2] for token in tokens)
    assert plan.group_size >= max(counts.values())
    # never worse than one group for each window
    assert plan.num_groups * plan.group_size**2 <= len(counts) * max(
        counts.values())**2


def test_overhead_moves_the_choice_to_less_padding():
    torch.manual_seed(0)
    layout = VisibleLayout.from_mask(random_mask(1, (7, 7), 0.75))
    cheap = plan_groups(layout, 8, Window(7, 3, 7))
    dear = plan_groups(layout, 8, Window(7, 3, 7), cost=GroupCost(1e6))
    assert dear.fill_rate >= cheap.fill_rate
    slots = dear.num_groups * dear.group_size
    assert slots <= cheap.num_groups * cheap.group_size
