# Copyright (c) greenmim authors. All rights reserved.
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from greenmim.visualization.gallery import GAP, TEXT
from greenmim.visualization.reconstruction import GREY

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'browse_dataset.py'


@pytest.fixture
def config(make_config) -> Path:
    """Flips, and masks drawn by the model."""
    return make_config({
        'train_dataloader.dataset.pipeline': [
            dict(type='greenmim.LoadImage'),
            dict(type='RandomFlip', prob=.5),
            dict(type='PackInputs')
        ]
    })


def cells(path):
    """The pictures of a sheet, {(row, column): (64, 64, 3)}."""
    sheet = np.asarray(Image.open(path))
    step = 64 + GAP
    return {
        (i, j):
        sheet[TEXT + i * step:TEXT + i * step + 64,
              GAP + j * step:GAP + j * step + 64]
        for i in range((sheet.shape[0] - TEXT) // step)
        for j in range(sheet.shape[1] // step)
    }


def test_own_images_with_masks(run_tool, config, images, tmp_path, capsys):
    folder = tmp_path / 'own'
    folder.mkdir()
    originals = []
    for i in range(3):
        image = Image.open(images / f'{2 * i}.png')
        image.save(folder / f'{i}.png')
        originals.append(np.asarray(image))
    out = tmp_path / 'new' / 'samples.png'
    run_tool(TOOL, config, '--data', folder, '--out', out, '--views', 3)
    assert f'{out} shows 3 of 3 images' in capsys.readouterr().out
    part = cells(out)
    flipped = set()
    for row, original in enumerate(originals):
        for view in range(3):
            seen, masked = part[row, 2 * view], part[row, 2 * view + 1]
            mirror = np.array_equal(seen, original[:, ::-1])
            assert mirror or np.array_equal(seen, original)
            flipped.add(mirror)
            # Three of four units are masked as a whole.
            hidden = (masked == GREY).all(-1)[::32, ::32]
            assert hidden.sum() == 3
            kept = ~hidden.repeat(32, 0).repeat(32, 1)
            assert np.array_equal(masked[kept], seen[kept])
            assert (masked[~kept] == GREY).all()
    assert flipped == {True, False}


def test_masks_of_the_pipeline_on_a_page(run_tool, make_config, tmp_path):
    page = tmp_path / 'samples.html'
    run_tool(TOOL, make_config(), '--out', page, '--num-images', 2)
    text = page.read_text('utf-8')
    assert text.count('<img src="data:image/png;base64,') == 8
    assert '0.png' in text and 'mask ratio 0.75' in text


@pytest.mark.parametrize('arguments, message', [
    (['--data', 'gone'], 'gone'),
    (['--views', '0'], 'got 0'),
    (['--bands', '0', '1', '2'], 'more than three channels'),
])
def test_bad_arguments(run_tool, config, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run_tool(TOOL, config, *arguments)
