# Copyright (c) greenmim authors. All rights reserved.
"""``greenmim.load``, ``preprocess`` and ``features``."""
import csv
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import greenmim
from greenmim.command import main
from tests.micro import save_images


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp('exported') / 'backbone.pth'
    greenmim.export(run.folder, 'mmpretrain', out=str(out))
    return out


@pytest.fixture
def images(tmp_path):
    """Four images, one of them broken."""
    files = save_images(tmp_path / 'ä b' / 'images', 4, (70, 50))
    files[1].write_bytes(files[1].read_bytes()[:100])
    return files


def test_a_run_its_checkpoint_and_its_export_are_one_backbone(run, exported):
    x = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    outputs = []
    for source in run.folder, run.checkpoint, exported:
        backbone = greenmim.load(source)
        assert not backbone.training and backbone.eval() is backbone
        assert backbone.train() is backbone and backbone.training
        outputs.append(backbone.eval()(x)[-1])
    assert outputs[0].shape[:2] == (2, outputs[0].shape[1])
    assert outputs[0].std() > 0
    for output in outputs[1:]:
        assert torch.equal(output, outputs[0])


def test_what_is_no_whole_backbone_is_refused(run, tmp_path):
    checkpoint = torch.load(run.checkpoint, weights_only=False)
    name = next(name for name in checkpoint['state_dict']
                if name.endswith('mlp.fc1.weight') or 'ffn' in name)
    del checkpoint['state_dict'][name]
    torch.save(checkpoint, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=name.partition('.')[2]):
        greenmim.load(tmp_path / 'part.pth')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        greenmim.load(tmp_path / 'nowhere')


def test_an_image_however_it_is_given(run, tmp_path):
    transform = greenmim.preprocess(run.folder)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3))
    pixels = pixels.astype(np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / 'image.png')
    expected = transform(tmp_path / 'image.png')
    assert expected.shape == (3, transform.size, transform.size)
    for given in str(tmp_path / 'image.png'), image, pixels:
        assert torch.equal(transform(given), expected)
    # The normalisation of the pre-training, of the right channels.
    red = transform(Image.new('RGB', (64, 64), (255, 0, 0)))
    mean = torch.tensor([123.675, 116.28, 103.53])
    std = torch.tensor([58.395, 57.12, 57.375])
    wanted = (torch.tensor([255., 0, 0]) - mean) / std
    assert torch.allclose(red, wanted.view(3, 1, 1).expand_as(red), atol=1e-4)


def test_features_are_those_of_each_image_alone(run, images, tmp_path, capsys):
    files = {suffix: tmp_path / 'o' / f'f{suffix}'
             for suffix in ('.npz', '.csv')}  # yapf: disable
    # A batch may hold the broken one alone.
    for file, batch_size in zip(files.values(), (2, 1)):
        found = greenmim.features(
            run.folder,
            str(images[0].parent),
            out=str(file),
            batch_size=batch_size,
            num_workers=0)
    assert len(found.paths) == 3 and list(found.left_out) == [str(images[1])]
    assert f'left out: {images[1]}' in capsys.readouterr().out
    backbone = greenmim.load(run.folder)
    transform = greenmim.preprocess(run.folder)
    with torch.inference_mode():
        for path, row in zip(found.paths, found.features):
            alone = backbone(transform(path)[None])[-1].mean((2, 3))[0]
            assert np.allclose(row, alone.numpy(), atol=1e-5)
    with np.load(files['.npz']) as saved:
        assert np.allclose(saved['features'], found.features, atol=1e-5)
        assert list(saved['paths']) == found.paths
    with files['.csv'].open(encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    assert header[:2] == ['path', 'feature_0']
    assert [row[0] for row in rows] == found.paths
    assert np.allclose(
        np.array([row[1:] for row in rows], dtype=float), found.features)


def test_maps_of_an_archive(run, images, tmp_path):
    archive = shutil.make_archive(
        str(tmp_path / 'zipped'), 'zip', images[0].parent)
    found = greenmim.features(
        run.folder, archive, maps=True, size=160, num_workers=0)
    assert len(found.paths) == 3 and found.features.ndim == 4
    pooled = greenmim.features(run.folder, archive, size=160, num_workers=0)
    assert np.allclose(found.features.mean((2, 3)), pooled.features, atol=1e-5)


def test_parquet(run, images, tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet')
    out = tmp_path / 'f.parquet'
    found = greenmim.features(
        run.folder, str(images[0].parent), out=str(out), num_workers=0)
    table = parquet.read_table(out).to_pydict()
    assert table['path'] == found.paths
    assert np.allclose(table['features'], found.features)


@pytest.mark.parametrize('options, message', [
    (['--out', 'f.txt'], r'ends in one of .*got f.txt'),
    (['--out', 'f.csv', '--maps'], 'maps, which are no table'),
])
def test_refused_before_anything_is_computed(run, images, monkeypatch, capsys,
                                             options, message):
    monkeypatch.chdir(images[0].parent)
    assert main(['features', str(run.folder), '.', *options]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not Path('f.csv').exists()


def test_the_package_of_parquet_is_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    out = str(tmp_path / 'f.parquet')
    assert main(['features', str(run.folder), '.', '--out', out]) == 1
    assert 'pip install pyarrow' in capsys.readouterr().err


def test_no_readable_image(run, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'')
    with pytest.raises((ValueError, FileNotFoundError), match='broken.jpg'):
        greenmim.features(run.folder, str(tmp_path), num_workers=0)
