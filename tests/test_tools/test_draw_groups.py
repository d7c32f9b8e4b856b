# Copyright (c) greenmim authors. All rights reserved.
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from greenmim.models.masking import random_mask
from greenmim.ops import GroupPlanner, StageWindows, VisibleLayout, Window

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'visualization' / 'draw_groups.py'


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(TOOL))


@pytest.mark.parametrize('window', [Window(7, 0, 7), Window(7, 3, 7)])
def test_windows_and_places_are_those_of_the_plan(tool, window):
    """Tokens lie in one box exactly if the plan puts them in one window."""
    side, grid = 4, (3, 5)
    mask = random_mask(1, grid, .5, torch.Generator().manual_seed(0))
    planner = GroupPlanner([StageWindows(side, (window, ))])
    plan = planner(VisibleLayout.from_mask(mask))
    groups = plan.groups[0][window]
    places = tool['token_places'](plan, side)
    for y, x in places:
        assert not mask[0, y // side, x // side]
    assert len({*map(tuple, places)}) == len(places) == 7 * side * side

    rows, cols = (tool['window_edges'](window, n) for n in (12, 20))
    assert (rows[0], rows[-1], cols[0], cols[-1]) == (0, 12, 0, 20)
    ys, xs = places.T
    box = list(zip(np.digitize(ys, rows), np.digitize(xs, cols)))
    number = groups.window_of_slot.flatten()[groups.slot_of_token].tolist()
    pairs = set(zip(box, number))
    assert len(pairs) == len(set(box)) == len(set(number))


@pytest.mark.parametrize('suffix', ['png', 'svg'])
def test_draws_all_stages(run_tool, make_config, tmp_path, capsys, suffix):
    out = tmp_path / 'new' / f'groups.{suffix}'
    config = make_config()
    run_tool(TOOL, config, '--out', out, '--size', 128)
    assert f'{out}: 4 of 16 units are visible' in capsys.readouterr().out
    first = out.read_bytes()
    if suffix == 'png':
        picture = np.asarray(Image.open(out).convert('RGB'))
        assert picture.std() > 20
    else:
        run_tool(TOOL, config, '--out', out, '--size', 128)
        assert out.read_bytes() == first


@pytest.mark.parametrize('arguments, message', [
    (['--size', '100'], '100'),
    (['--image', 'gone.png'], 'gone.png'),
])
def test_bad_arguments(run_tool, make_config, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run_tool(TOOL, make_config(), *arguments)
