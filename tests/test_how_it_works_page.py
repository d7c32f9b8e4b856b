# Copyright (c) greenmim authors. All rights reserved.
"""docs/how_it_works.md: its example runs, its pictures and numbers are so."""
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from greenmim.ops.planning import CPU_COST
from tests.conftest import CHECKOUT
from tests.documents import Page, lines_of, run_line

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


def test_pictures(workspace, run_tool):
    """The pictures of the page are what its commands draw."""
    for line in lines_of(DRAW):
        run_line(run_tool, line)
        drawn = Path(line.split('--out ')[1])
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


def test_cost_of_a_slot():
    assert int(re.search(r'Here a is (\d+),',
                         PAGE.text)[1]) == CPU_COST.overhead


def test_cost_above_the_bound():
    table = Page('docs/benchmarks.md').text.split('### Grouping')[1]
    above = [float(x) for x in re.findall(r'\| ([\d.]+)% \|$', table, re.M)]
    most = float(re.search(r'at most (\d+) % above', PAGE.text)[1])
    assert len(above) > 4 and max(above) <= most


@pytest.mark.parametrize(
    'heading',
    ['The masked forward of Swin, in reading order', 'Where is ...?'])
def test_places_in_the_code(heading):
    """Each row names files, and functions or classes in the first of them."""
    table = PAGE.text.split(heading)[1].split('\n\n')[1]
    rows = re.findall(r'^\|.*`greenmim/.*', table, re.M)
    assert len(rows) > 5
    for row in rows:
        file, *names = re.findall(r'`([\w./]+)`', row)
        source = (CHECKOUT / file).read_text('utf-8')
        for name in names:
            name = name.split('.')[-1]
            assert re.search(rf'^ *(def|class) {name}\b', source, re.M), name


def test_the_forward_of_swin_is_read_in_six_files():
    table = PAGE.text.split('in reading order')[1].split('\n\n')[1]
    assert len(set(re.findall(r'`(greenmim/[\w/]+\.py)`', table))) <= 6
