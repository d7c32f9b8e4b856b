# Copyright (c) greenmim authors. All rights reserved.
"""``greenmim prepare``."""
import shutil

import numpy as np
import pytest
from PIL import Image

from greenmim.apis.prepare import prepare
from greenmim.command import main
from greenmim.datasets import ImageArchive, ImageFolder, LoadImage
from tests.micro import save_images

NAMES = ['0.png', '1.png', 'deeper/0.png']


@pytest.fixture
def photos(tmp_path):
    """Two large images, a small one in a folder, and a damaged one."""
    folder = tmp_path / 'photos'
    files = save_images(folder, 2, (90, 120), cells=6)
    save_images(folder / 'deeper', 1, (40, 30), cells=6, seed=1)
    (folder / 'broken.png').write_bytes(files[0].read_bytes()[:100])
    return folder


def lmdb_of(folder, path):
    lmdb = pytest.importorskip('lmdb')
    with lmdb.open(
            str(path),
            map_size=2**20) as env, env.begin(write=True) as transaction:
        for file in folder.rglob('*.png'):
            transaction.put(
                file.relative_to(folder).as_posix().encode(),
                file.read_bytes())
    return path


@pytest.mark.parametrize('kind, out, format, channels', [
    ('folder', 'small.tar', 'webp', 3),
    ('zip', 'new/small', 'jpeg', 3),
    ('lmdb', 'small.tar', 'jpeg', 1),
])
def test_smaller_copies(photos, tmp_path, capsys, kind, out, format, channels):
    """Each image has its name, its content and the side that was asked for."""
    source = photos
    if kind == 'zip':
        source = shutil.make_archive(str(tmp_path / 'zipped'), 'zip', photos)
    elif kind == 'lmdb':
        source = lmdb_of(photos, tmp_path / 'photos.lmdb')
    out = tmp_path / out
    done = prepare(
        str(source), str(out), side=45, format=format, channels=channels)
    assert done.out == out and done.images == 3
    assert done.pixels == (2 * 90 * 120 + 40 * 30, 2 * 45 * 60 + 40 * 30)
    assert 0 < done.bytes[1] < done.bytes[0] and 0 < done.error < 5
    path, = done.left_out
    assert path.endswith('/broken.png')
    printed = capsys.readouterr().out
    assert f'{out}: 3 images' in printed and f'left out: {path}: ' in printed

    reader = ImageArchive if out.suffix == '.tar' else ImageFolder
    copies = reader(str(out), [LoadImage(channels)])
    assert [copies.get_data_info(i)['img_path'] for i in range(len(copies))
            ] == [f'{out}/{name}.{format}' for name in NAMES]
    for i, name in enumerate(NAMES):
        with Image.open(photos / name) as image:
            small = image.convert('L' if channels == 1 else 'RGB').resize(
                (30, 40) if 'deeper' in name else (60, 45),
                Image.Resampling.BICUBIC)
        copy = copies.prepare_data(i)['img'][..., ::2 - channels]  # to RGB
        copy = copy.reshape(np.asarray(small).shape)
        assert abs(copy - np.asarray(small, float)).mean() < 5


@pytest.mark.parametrize('options, message', [
    (['new', '--side', '0'], 'side of 1 or more'),
    (['new', '--quality', '101'], 'quality of 1 to 100'),
    (['photos'], 'there is photos;'),
    (['stopped'], 'there is stopped.part;'),
])
def test_what_is_refused(photos, monkeypatch, capsys, options, message):
    monkeypatch.chdir(photos.parent)
    (photos.parent / 'stopped.part').mkdir()
    assert main(['prepare', 'photos', *options]) == 1
    assert message in capsys.readouterr().err
    assert {path.name
            for path in photos.parent.iterdir()} == {'photos', 'stopped.part'}


def test_no_readable_image(photos, tmp_path):
    for path in photos.rglob('[01].png'):
        path.unlink()
    with pytest.raises(ValueError, match='none of its 1 images.*broken.png'):
        prepare(str(photos), str(tmp_path / 'new'))
    assert list(tmp_path.iterdir()) == [photos]
