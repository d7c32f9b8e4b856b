# Copyright (c) greenmim authors. All rights reserved.
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from mmpretrain.datasets import PackInputs  # noqa: F401, registers
from PIL import Image
from torch.utils.data import DataLoader

from greenmim.datasets import (ImageArchive, ImageFolder,
                               SeededInfiniteSampler, UnreadableImageError)

PIPELINE = [
    dict(type='greenmim.LoadImage'),
    dict(type='mmpretrain.PackInputs', meta_keys=['img_path'])
]
NAMES = ['b.png', 'x/a.png', 'x/c.png', 'x/y/d.PNG', 'x/broken.png']
OTHERS = ['notes.txt', '.hidden.png', 'x/._a.png']


def contents():
    """Content of files by name: images of one value each, and others."""
    files = {}
    for i, name in enumerate(NAMES):
        buffer = io.BytesIO()
        Image.new('RGB', (8, 6), (10 * i, ) * 3).save(buffer, 'png')
        files[name] = buffer.getvalue()
    files['x/broken.png'] = files['x/broken.png'][:40]
    files.update(dict.fromkeys(OTHERS, b'nothing'))
    return files


def make_zip(path, files):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.mkdir('x.png') if hasattr(archive, 'mkdir') else None
        for name, content in files.items():
            archive.writestr(name, content)


def make_tar(path, files, mode='w'):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def make_lmdb(path, files):
    lmdb = pytest.importorskip('lmdb')
    with lmdb.open(str(path), map_size=2**20) as database:
        with database.begin(write=True) as transaction:
            for name in NAMES:
                transaction.put(name.encode(), files[name])


MAKERS = dict(zip=make_zip, tar=make_tar, lmdb=make_lmdb)


@pytest.fixture(params=MAKERS)
def archive(request, tmp_path):
    path = tmp_path / f'images.{request.param}'
    MAKERS[request.param](path, contents())
    return path


def build(path, **options):
    return ImageArchive(path, PIPELINE, **options)


def test_equals_the_unpacked_folder(archive, tmp_path):
    folder = tmp_path / 'unpacked'
    for name, content in contents().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    packed, unpacked = build(str(archive)), ImageFolder(str(folder), PIPELINE)
    assert len(packed) == len(unpacked) == len(NAMES)
    for i, name in enumerate(sorted(NAMES)):
        actual, expected = packed[i], unpacked[i]
        assert (actual['inputs'] == expected['inputs']).all()
        actual, expected = actual['data_samples'], expected['data_samples']
        below = expected.img_path[len(str(folder)):]
        assert actual.img_path == f'{archive}{below}'
        if name == 'x/broken.png':
            reason, = actual.skipped_images.items()
            assert reason[0] == f'{archive}/{name}'
        else:
            assert 'skipped_images' not in actual and below[1:] == name


def test_workers_read_the_same(archive):
    """Two processes that inherit an open archive."""
    dataset = build(str(archive))
    expected = [dataset[i]['inputs'] for i in range(len(dataset))]
    sampler = SeededInfiniteSampler(dataset, shuffle=False, seed=0)
    loader = DataLoader(
        dataset, 1, sampler=sampler, num_workers=2, collate_fn=list)
    for i, (sample, ) in zip(range(40), loader):
        assert (sample['inputs'] == expected[i % len(dataset)]).all()
        assert 'mask_seed' in sample['data_samples']


def test_several_archives(tmp_path):
    make_zip(tmp_path / 'a.zip', contents())
    make_tar(tmp_path / 'b.tar', {'only.png': contents()['x/a.png']})
    dataset = build([str(tmp_path / name) for name in ('a.zip', 'b.tar')])
    assert len(dataset) == len(NAMES) + 1
    last = dataset[len(NAMES)]['data_samples'].img_path
    assert last == f'{tmp_path}/b.tar/only.png'


def test_spawned_workers_get_a_copy_without_open_files(tmp_path):
    make_zip(tmp_path / 'a.zip', contents())
    dataset = build(str(tmp_path / 'a.zip'))
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy[1]['inputs'] == dataset[1]['inputs']).all()


def test_a_damaged_member_of_a_zip_is_skipped(tmp_path):
    path = tmp_path / 'a.zip'
    files = contents()
    damaged = dict(files, photo=files['x/a.png'] + b'more')
    make_zip(path, damaged)
    content = path.read_bytes()
    for name in 'b.png', 'photo':
        place = content.index(damaged[name]) + len(damaged[name]) // 2
        content = content[:place] + b'\0\1\2\3' + content[place + 4:]
    path.write_bytes(content)
    # Without an ending there is nothing that makes it an image.
    names = [
        info['img_path'] for info in ImageArchive(
            str(path), [], by_signature=True).load_data_list()
    ]
    assert names == sorted(f'{path}/{name}' for name in NAMES)
    sample = build(str(path))[0]['data_samples']
    message, = [
        text for name, text in sample.skipped_images.items()
        if name.endswith('b.png')
    ]
    assert 'Bad CRC-32' in message


def test_a_cut_tar_keeps_what_comes_before(tmp_path, caplog):
    path = tmp_path / 'a.tar'
    rng = np.random.default_rng(0)
    files = {}
    for i in range(4):
        buffer = io.BytesIO()
        noise = rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, 'png')
        files[f'{i}.png'] = buffer.getvalue()
    make_tar(path, files)
    content = path.read_bytes()
    path.write_bytes(content[:content.index(files['2.png']) + 100])
    dataset = build(str(path))
    assert len(dataset) == 3
    sample = dataset[2]['data_samples']
    reason = sample.skipped_images[f'{path}/2.png']
    assert 'ends after 100 of its' in reason


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match='use ImageFolder'):
        build(str(tmp_path))
    make_tar(tmp_path / 'a.tar.gz', contents(), 'w:gz')
    with pytest.raises(ValueError, match='gunzip'):
        build(str(tmp_path / 'a.tar.gz'))
    make_zip(tmp_path / 'none.zip', {'notes.txt': b'nothing'})
    with pytest.raises(FileNotFoundError, match='set `extensions`'):
        build(str(tmp_path / 'none.zip'))
    make_zip(tmp_path / 'bad.zip', {'a.png': b'nothing'})
    with pytest.raises(UnreadableImageError, match='none of its 1 images'):
        build(str(tmp_path / 'bad.zip'))
    with pytest.raises(ValueError, match='got none'):
        build([])
