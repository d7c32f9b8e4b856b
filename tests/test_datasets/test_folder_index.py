# Copyright (c) greenmim authors. All rights reserved.
"""The list of a large folder is kept as long as nothing changes."""
import os
import time

import pytest
from PIL import Image

from greenmim.datasets import ImageFolder, folder_index
from greenmim.datasets.folder_index import list_images

EXTENSIONS = ('.jpg', '.png')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """More than a thousand files, above the limit, unchanged for an hour."""
    monkeypatch.setattr(folder_index, 'LARGE', 400)
    root = tmp_path / 'images'
    for number in range(3):
        (root / f'{number}' / 'x').mkdir(parents=True)
        for i in range(400):
            (root / f'{number}' / 'x' / f'{i}.jpg').touch()
    # A name that is no UTF-8, and one that holds a new line.
    with open(os.fsencode(root) + b'/\xff\xfe.png', 'wb'):
        pass
    (root / 'a\nb.png').touch()
    (root / 'notes.txt').touch()
    age(root)
    return root


def age(root):
    """Make every folder an hour old; as many hours as times it is called."""
    for path, _, _ in os.walk(root):
        times = os.stat(path).st_mtime - 3600
        os.utime(path, (times, times))


@pytest.fixture
def searches(monkeypatch):
    """How often the folder was searched."""
    calls = []

    def search(*args):
        calls.append(args)
        return original(*args)

    original = folder_index._search
    monkeypatch.setattr(folder_index, '_search', search)
    return calls


def listed(folder, index_dir):
    return list_images(str(folder), EXTENSIONS, str(index_dir))[0]


def test_a_second_run_reads_the_list(folder, tmp_path, searches):
    index = tmp_path / 'index'
    expected = sorted(
        os.path.relpath(os.path.join(path, name), folder)
        for path, _, names in os.walk(folder) for name in names
        if name != 'notes.txt')
    assert len(expected) == 1202
    assert listed(folder, index) == expected
    assert len(searches) == 1
    assert listed(folder, index) == expected
    assert listed(f'{folder}/', index) == expected
    link = tmp_path / 'link'
    link.symlink_to(folder)
    assert listed(link, index) == expected
    assert len(searches) == 1
    assert len(list(index.iterdir())) == 1

    assert list_images(str(folder), EXTENSIONS, None)[0] == expected
    assert list_images(str(folder), ('.png', ),
                       str(index)) == (expected[-2:], {
                           '.jpg': 1200,
                           '.txt': 1
                       })
    assert len(searches) == 3


@pytest.mark.parametrize('change', ['add', 'remove', 'rename', 'link'])
def test_changes_are_seen(folder, tmp_path, searches, change):
    index = tmp_path / 'index'
    before = listed(folder, index)
    file = folder / '1' / 'x' / '5.jpg'
    if change == 'add':
        (folder / '1' / 'new.png').touch()
    elif change == 'remove':
        file.unlink()
    elif change == 'rename':
        file.rename(folder / '2' / 'other.jpg')
    else:
        (tmp_path / 'elsewhere').mkdir()
        (tmp_path / 'elsewhere' / 'linked.jpg').touch()
        (folder / 'link').symlink_to(tmp_path / 'elsewhere')
    after = listed(folder, index)
    assert len(searches) == 2
    assert after == list_images(str(folder), EXTENSIONS, None)[0] != before


def test_a_folder_that_is_being_filled_is_not_kept(folder, tmp_path):
    """What comes within the same tick of a clock moves no time."""
    index = tmp_path / 'index'
    now = time.time()
    os.utime(folder / '1', (now, now))
    assert len(listed(folder, index)) == 1202
    assert not index.exists()


def test_small_folders_have_no_index(folder, tmp_path):
    index = tmp_path / 'index'
    assert len(listed(folder / '1' / 'x', index)) == 400
    assert len(list(index.iterdir())) == 1
    (folder / '2' / 'x' / '0.jpg').unlink()
    age(folder)
    assert len(listed(folder / '2' / 'x', index)) == 399
    assert len(list(index.iterdir())) == 1


@pytest.mark.parametrize('content', [
    '', '{"folders"', '{"images": []}',
    pytest.param('{"folders": {}, "images": []}', id='of an earlier version')
])
def test_a_broken_index_is_replaced(folder, tmp_path, searches, content):
    index = tmp_path / 'index'
    expected = listed(folder, index)
    file, = index.iterdir()
    file.write_text(content)
    assert listed(folder, index) == expected
    assert listed(folder, index) == expected
    assert len(searches) == 2


def test_an_index_that_cannot_be_written_is_no_error(folder, tmp_path):
    blocked = tmp_path / 'file'
    blocked.touch()
    assert len(listed(folder, blocked / 'index')) == 1202


def test_the_data_set_keeps_one(folder, tmp_path, searches):
    Image.new('RGB', (8, 8)).save(folder / '0.jpg')
    age(folder)
    sets = [
        ImageFolder(
            str(folder), [dict(type='greenmim.LoadImage')],
            index_dir=str(tmp_path / 'index')) for _ in range(2)
    ]
    assert len(searches) == 1
    first, second = ([
        data.get_data_info(i)['img_path'] for i in range(len(data))
    ] for data in sets)
    assert first == second and len(first) == 1203
    assert first[0] == str(folder / '0.jpg')


def test_a_link_to_nothing_is_no_image(tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'photo', 'PNG')
    (tmp_path / 'gone').symlink_to(tmp_path / 'nowhere')
    paths, left_out = list_images(
        str(tmp_path), EXTENSIONS, None, by_signature=True)
    assert paths == ['photo'] and left_out == {'': 1}
