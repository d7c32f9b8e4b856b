# Copyright (c) greenmim authors. All rights reserved.
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from greenmim.registry import MODELS
from greenmim.visualization.gallery import GAP, TEXT
from greenmim.visualization.reconstruction import GREY

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'visualization' / 'reconstruct.py'


@pytest.fixture
def config(make_config) -> Path:
    return make_config()


@pytest.fixture
def checkpoint(config, tmp_path) -> Path:
    init_default_scope('mmpretrain')
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def cell(path, row, column, size):
    """One picture of the sheet, (size, size, 3)."""
    y, x = TEXT + row * (size + GAP), GAP + column * (size + GAP)
    return np.asarray(Image.open(path))[y:y + size, x:x + size]


def share_of_grey(picture) -> float:
    return (picture == GREY).all(-1).mean()


def test_images_of_the_training_data(run_tool, config, checkpoint, images,
                                     tmp_path, capsys):
    out = tmp_path / 'new' / 'picture.png'
    run_tool(TOOL, config, checkpoint, '--out', out, '--num-images', 2)
    assert f'{out} shows 2 images' in capsys.readouterr().out
    # 0.png and 1.png of eight, in the order of the folder
    files = sorted(images.rglob('*.png'))
    for row, file in enumerate([files[0], files[4]]):
        assert np.array_equal(cell(out, row, 0, 64), Image.open(file))
        assert share_of_grey(cell(out, row, 1, 64)) == pytest.approx(.75)


def test_files_size_ratio_and_seed(run_tool, config, checkpoint, images,
                                   tmp_path):
    wide = tmp_path / 'wide.png'
    Image.open(next(images.glob('*.png'))).resize((200, 96)).save(wide)
    pictures = []
    for seed in (0, 0, 1):
        out = tmp_path / 'picture.png'
        run_tool(TOOL, config, checkpoint, wide, '--out', out, '--size', 96,
                 '--mask-ratio', 0.5, '--seed', seed)
        expected = np.asarray(Image.open(wide))[:, 52:148]
        assert np.array_equal(cell(out, 0, 0, 96), expected)
        # 4 of 9 units stay visible
        assert share_of_grey(cell(out, 0, 1, 96)) == pytest.approx(
            5 / 9, abs=.01)
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_folder(run_tool, config, checkpoint, images, tmp_path, capsys):
    """As many of its images as asked for, and files beside it."""
    file = sorted(images.rglob('*.png'))[1]
    out = tmp_path / 'page.html'
    run_tool(TOOL, config, checkpoint, images, file, '--num-images', 2,
             '--out', out)
    assert f'{out} shows 3 images' in capsys.readouterr().out
    page = out.read_text('utf-8')
    assert page.count('<img src="data:image/png;base64,') == 18
    assert re.findall(r'\d\.png', page) == ['0.png', '1.png', '2.png']


def test_page(run_tool, config, checkpoint, images, tmp_path, capsys):
    """A page for a browser, with the errors of model and naive fillings."""
    files = sorted(images.rglob('*.png'))[:2]
    out = tmp_path / 'page.html'
    run_tool(TOOL, config, checkpoint, *files, '--out', out)
    assert f'{out} shows 2 images' in capsys.readouterr().out
    page = out.read_text('utf-8')
    assert page.count('<img src="data:image/png;base64,') == 12
    assert all(file.name in page for file in files)
    assert page.count('for a smooth interpolation') == 3
    assert 'guessed from the visible' in page


def test_bars_and_thirteen_channels(run_tool, make_config, tmp_path):
    """The target FastMIM predicts, on images that no screen shows as such."""
    config = make_config({
        'model.data_preprocessor':
        dict(
            type='SelfSupDataPreprocessor',
            mean=[99.],
            std=[50.],
            to_rgb=False),
        'model.backbone.in_channels':
        13,
        'model.neck.out_channels':
        13 * 144,
        'model.head.target':
        dict(type='greenmim.HOGTarget'),
        'train_dataloader.dataset.pipeline': [
            dict(type='greenmim.LoadImage', channels=13),
            dict(type='PackInputs')
        ]
    })
    model = MODELS.build(Config.fromfile(config).model)
    checkpoint = tmp_path / 'b.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    bands = np.random.default_rng(0).integers(0, 256, (64, 64, 13), 'uint8')
    tifffile.imwrite(tmp_path / 'a.tif', bands, photometric='minisblack')
    out = tmp_path / 'picture.png'
    run_tool(TOOL, config, checkpoint, tmp_path / 'a.tif', '--out', out,
             '--bands', 3, 2, 1)
    assert np.array_equal(cell(out, 0, 0, 64), bands[..., 3:0:-1])
    # input, masked, reconstruction, paste, target, error
    assert Image.open(out).width == GAP + 6 * (64 + GAP)
    target = cell(out, 0, 4, 64)
    assert (target == target[..., :1]).all() and target.max() == 255


@pytest.mark.parametrize('arguments, message', [
    (['gone.png'], 'gone.png'),
    ([str(ROOT / 'greenmim' / 'ops')], 'no file below'),
    (['--bands', '0', '1', '2'], 'more than three channels'),
    (['--size', '100'], '100'),
    (['--mask-ratio', '1'], '1'),
])
def test_bad_arguments(run_tool, config, checkpoint, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run_tool(TOOL, config, checkpoint, *arguments)


def test_missing_checkpoint(run_tool, config):
    with pytest.raises(SystemExit, match='gone.pth'):
        run_tool(TOOL, config, 'gone.pth')
