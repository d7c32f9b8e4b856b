# Copyright (c) greenmim authors. All rights reserved.
"""Which files of a folder or archive are images, and what is said of them."""
import json
import logging
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from greenmim.datasets import (ImageArchive, ImageFolder, LabelledFolder,
                               LoadImage, UnreadableImageError)
from greenmim.datasets.file_kinds import (EXTENSIONS, describe, ending_of,
                                          kind_of, summary)
from tests.conftest import CHECKOUT
from tests.test_datasets.test_dicom import dicom

VALUE = 90
FORMATS = {
    '.jpe': 'JPEG',
    '.jfif': 'JPEG',
    '.ppm': 'PPM',
    '.pgm': 'PPM',
    '.jp2': 'JPEG2000',
    '.j2k': 'JPEG2000'
}


def save(path) -> None:
    """A grey image, of the kind that the name's ending says."""
    ending = ending_of(path.name)
    grey = Image.new('L' if ending == '.pgm' else 'RGB', (40, 32),
                     VALUE if ending == '.pgm' else (VALUE, ) * 3)
    if ending == '.dcm':
        path.write_bytes(dicom(np.full((32, 40), VALUE * 257, np.uint16)))
    elif ending in ('.heic', '.heif'):
        import pillow_heif
        pillow_heif.from_pillow(grey).save(path, quality=95)
    else:
        grey.save(path, FORMATS.get(ending))


@pytest.fixture(scope='module')
def all_kinds(tmp_path_factory):
    """A file of every kind that is read by default, and others."""
    folder = tmp_path_factory.mktemp('kinds')
    for ending in EXTENSIONS:
        save(folder / f'image{ending.upper()}')
    for name in 'a.txt', 'b.txt', 'README', '1.2.840.5', 'empty':
        (folder / name).touch()
    for name, ending in (('photo', '.jpg'), ('scan', '.tif'), ('2.16.5',
                                                               '.dcm')):
        shutil.copy(folder / f'image{ending.upper()}', folder / name)
    return folder


@pytest.fixture
def logged(caplog, monkeypatch):
    """The messages of the log so far."""
    monkeypatch.setattr(MMLogger, 'get_current_instance',
                        lambda: logging.getLogger('kinds'))
    caplog.set_level(logging.INFO)
    return lambda: '\n'.join(caplog.messages)


def names(dataset):
    return sorted(
        dataset.get_data_info(i)['img_path'].rsplit('/', 1)[1]
        for i in range(len(dataset)))


def test_every_ending_is_taken_and_read(all_kinds, logged):
    expected = '.jpg .jpeg .jfif .jpe .png .bmp .ppm .pgm .tif .tiff .webp ' \
        '.gif .jp2 .j2k .heic .heif .avif .dcm'
    assert set(EXTENSIONS) == set(expected.split())
    dataset = ImageFolder(str(all_kinds), [LoadImage()])
    assert names(dataset) == sorted(f'image{e.upper()}' for e in EXTENSIONS)
    for i in range(len(dataset)):
        image = dataset[i]['img']
        assert image.shape == (32, 40, 3)
        assert abs(image.astype(int) - VALUE).max() <= 3, dataset[i]
    assert logged().splitlines()[0] == (
        f"'{all_kinds}': 18 images; left out: 6 without an ending, 2 .txt")


def test_by_signature(all_kinds, logged, tmp_path):
    dataset = ImageFolder(str(all_kinds), [LoadImage()], by_signature=True)
    assert len(dataset) == 21
    assert {'photo', 'scan', '2.16.5'} < set(names(dataset))
    assert '21 images; left out: 3 without an ending, 2 .txt' in logged()
    for kind in 'zip', 'tar':
        archive = shutil.make_archive(
            str(tmp_path / 'images'), kind, all_kinds)
        for chosen, number in ((False, 18), (True, 21)):
            dataset = ImageArchive(archive, [LoadImage()], by_signature=chosen)
            assert len(dataset) == number
            left = 6 if not chosen else 3
            assert (f"['{archive}']: {number} images; left out: {left} without"
                    ' an ending, 2 .txt') in logged()


def test_kind_of_every_format(all_kinds):
    found = {
        path.suffix.lower(): kind_of(path.read_bytes()[:132])
        for path in all_kinds.glob('image*')
    }
    same = {
        '.jpeg': '.jpg', '.jfif': '.jpg', '.jpe': '.jpg', '.pgm': '.ppm',
        '.tiff': '.tif', '.j2k': '.jp2', '.heif': '.heic'
    }  # yapf: disable
    assert found == {e: same.get(e, e) for e in EXTENSIONS}


ABSENT = '''
import json, sys
for name in ('pillow_heif', 'pydicom', 'PIL._avif'):
    sys.modules[name] = None  # as if it were not installed
from greenmim.datasets import ImageFolder, LoadImage
dataset = ImageFolder(sys.argv[1], [LoadImage()], by_signature=True)
errors = []
for ending in 'HEIC', 'HEIF', 'AVIF', 'DCM':
    try:
        LoadImage()(dict(img_path=f'{sys.argv[1]}/image.{ending}'))
    except ValueError as error:
        errors.append(str(error))
try:
    ImageFolder(sys.argv[2])
except FileNotFoundError as error:
    errors.append(str(error))
print('RESULT', json.dumps([len(dataset), errors]))
'''


def test_without_the_libraries(all_kinds, tmp_path, environment):
    """What is left out and every error name the package and the extra."""
    shutil.copy(all_kinds / 'image.HEIC', tmp_path)
    result = subprocess.run(
        [sys.executable, '-c', ABSENT,
         str(all_kinds),
         str(tmp_path)],
        env=environment,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True)
    line = next(line for line in result.stdout.splitlines()
                if ': 16 images; left out' in line)
    assert line.endswith(
        '16 images; left out: 3 without an ending, 2 .dcm (install pydicom), '
        '2 .txt, 1 .avif (install pillow 11.3 or later), 1 .heic (install '
        'pillow-heif), 1 .heif (install pillow-heif)')
    number, errors = json.loads(result.stdout.split('RESULT ')[1])
    assert number == 16
    heic, heif, avif, dcm, folder = errors
    for error in heic, heif:
        assert 'pip install pillow-heif (or greenmim[heif])' in error
    assert 'pip install -U pillow' in avif
    assert 'pip install pydicom (or greenmim[dicom])' in dcm
    assert 'there are 1 .heic (install pillow-heif)' in folder


def test_the_line_from_the_index(all_kinds, tmp_path, logged, monkeypatch):
    monkeypatch.setattr('greenmim.datasets.folder_index.LARGE', 1)
    monkeypatch.setattr('greenmim.datasets.folder_index.SETTLED', -1e9)
    for chosen in (False, False, True, True):
        ImageFolder(
            str(all_kinds), index_dir=str(tmp_path), by_signature=chosen)
    lines = logged().splitlines()
    assert sum('Read the list of images from' in line for line in lines) == 2
    counts = Counter(line for line in lines if 'left out' in line)
    assert counts == {
        f"'{all_kinds}': 18 images; left out: 6 without an ending, 2 .txt": 2,
        f"'{all_kinds}': 21 images; left out: 3 without an ending, 2 .txt": 2
    }


def test_the_line_of_labelled_images(all_kinds, tmp_path, logged):
    for name in 'a', 'b':
        shutil.copytree(all_kinds, tmp_path / name)
    shutil.copy(all_kinds / 'image.PNG', tmp_path)
    assert len(LabelledFolder(str(tmp_path))) == 36
    assert ('37 images; left out: 12 without an ending, 4 .txt\n'
            f'{tmp_path}: left out: 1 images that are in no class '
            'folder') in logged()


def test_counts_and_endings():
    assert [
        ending_of(name) for name in ('a.JPG', 'b', 'c.', 'x.tar.gz', '1.2.840',
                                     'a.b c', '.hidden', 'IMG.12a')
    ] == ['.jpg', '', '', '.gz', '', '', '', '.12a']
    many = {f'.{i}x': 1 for i in range(12)}
    assert describe(many).endswith(', 1 .7x, 2 with other endings')
    assert summary('f', 1012, {}) == 'f: 1,012 images'
    assert summary('f', 1, {'': 1}) == 'f: 1 image; left out: 1 without an ' \
        'ending'


def test_a_large_image_is_named_with_the_option(tmp_path):
    for ending in EXTENSIONS:
        path = tmp_path / f'image{ending}'
        save(path)
        with pytest.raises(UnreadableImageError, match='max_pixels=1,000 '):
            LoadImage(max_pixels=1000)(dict(img_path=str(path)))
