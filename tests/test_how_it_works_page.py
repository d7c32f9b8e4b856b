# Copyright (c) greenmim authors. All rights reserved.
"""docs/how_it_works.md: its example runs, its pictures and numbers are so."""
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from greenmim.ops import choose_group_size
from greenmim.ops.planning import SLOT_COST
from tests.conftest import CHECKOUT
from tests.documents import Page, lines_of

PAGE = Page('docs/how_it_works.md')
EXAMPLE, = PAGE.take('python')
DRAW, = PAGE.take('bash')


def test_example(capsys):
    torch.manual_seed(0)
    scope = {}
    exec(EXAMPLE, scope)
    shapes = re.findall(r'# .*\((2(?:, \d+)+)\)', EXAMPLE)
    found = [scope['maps'][0].shape, scope['latent'].shape]
    assert shapes == [', '.join(map(str, shape)) for shape in found]
    assert scope['latent'].std() > 0.1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7  # two kinds of windows, in the last stage one
    assert all(re.match(r'[1-4] \d+ groups of \d+', line) for line in lines)


def test_pictures(tmp_path, monkeypatch):
    """They can be drawn anew; those of the page are still what is drawn."""
    for name in 'configs', 'tools':
        (tmp_path / name).symlink_to(CHECKOUT / name)
    monkeypatch.chdir(tmp_path)
    for line in lines_of(DRAW):
        words = shlex.split(line)[1:]
        monkeypatch.setattr(sys, 'argv', words)
        runpy.run_path(words[0], run_name='__main__')
        drawn = Path(words[words.index('--out') + 1])
        shown = CHECKOUT / 'docs' / 'images' / drawn.name
        with Image.open(drawn) as new, Image.open(shown) as old:
            assert new.size == old.size
            # Fonts and antialiasing differ between machines.
            pixels = [
                np.asarray(image.convert('L').resize((64, 32)), float)
                for image in (new, old)
            ]
            assert np.abs(pixels[0] - pixels[1]).mean() < 3


def test_table_of_tokens():
    rows = re.findall(
        r'^\| (\d) \| (\d+) x \d+ \| (?:(\d+) x \d+|1) \| (\d+) \| '
        r'(\d+) \|$', PAGE.text, re.M)
    assert len(rows) == 4
    for stage, pixels, side, visible, dense in rows:
        assert int(pixels) == 2 * 2**int(stage)
        side = int(side or 1)
        assert side * int(pixels) == 32
        assert (int(visible), int(dense)) == (12 * side**2, 49 * side**2)


def fewest_groups(counts, size):
    """By trying every packing."""
    best = len(counts)

    def place(i, space):
        nonlocal best
        if len(space) >= best:
            return
        if i == len(counts):
            best = len(space)
            return
        for j in range(len(space)):
            if space[j] >= counts[i]:
                rest = space[:j] + [space[j] - counts[i]] + space[j + 1:]
                place(i + 1, rest)
        place(i + 1, space + [size - counts[i]])

    place(0, [])
    return best


def test_cost_of_a_group():
    """The formula of the page is what is minimised."""
    slot_cost = int(re.search(r'Here\s+a\s+is\s+(\d+),', PAGE.text)[1])
    assert slot_cost == SLOT_COST
    for counts in ([9, 7, 6, 5, 4, 2, 1], [20, 3, 3], [5, 5, 5, 5, 5], [40]):
        size, groups = choose_group_size(counts, slot_cost)
        costs = [
            fewest_groups(counts, g) * (g**2 + slot_cost * g)
            for g in range(max(counts),
                           sum(counts) + 1)
        ]
        assert len(groups) * (size**2 + slot_cost * size) == min(costs)


def test_cost_above_the_bound():
    table = Page('docs/benchmarks.md').text.split('### Grouping')[1]
    above = [float(x) for x in re.findall(r'\| ([\d.]+)% \|$', table, re.M)]
    most = float(re.search(r'at most (\d+) % above', PAGE.text)[1])
    assert len(above) > 4 and max(above) <= most
