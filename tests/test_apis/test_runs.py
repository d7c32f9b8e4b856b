# Copyright (c) greenmim authors. All rights reserved.
"""What commands take for a run, and what they refuse."""
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import greenmim
from greenmim.apis.backbones import recipe_of
from greenmim.apis.loading import Preprocess
from greenmim.apis.reconstruct import load_samples
from greenmim.apis.runs import resolve
from greenmim.command import main
from tests.micro import save_classes, save_images


def test_a_run_that_has_no_checkpoint_yet(run, tmp_path):
    shutil.copy(run.config, tmp_path)
    begun = greenmim.read_run(tmp_path)
    assert begun.checkpoint is None and begun.losses == {}
    with pytest.raises(FileNotFoundError, match='has none yet'):
        resolve(tmp_path)
    # That of a moved folder is found, one that is gone is not.
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(run.checkpoint.parent / 'iter_99.pth'))
    assert greenmim.read_run(tmp_path).checkpoint is None
    shutil.copy(run.checkpoint, tmp_path / 'iter_99.pth')
    assert resolve(tmp_path) == (tmp_path / 'config.py',
                                 tmp_path / 'iter_99.pth')
    with pytest.raises(FileNotFoundError, match='no folder .*nowhere'):
        greenmim.read_run(tmp_path / 'nowhere')


@pytest.mark.parametrize('words, message', [
    (['knn', 'config.py', '--data', '.'], 'a config and a checkpoint'),
    (['export', 'RUN', '--to', 'keras'], "invalid choice: 'keras'"),
    (['finetune', 'RUN', '.', '--resume', '--overwrite'], 'got both'),
])
def test_what_is_refused(run, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    words = [str(run.folder) if word == 'RUN' else word for word in words]
    try:
        assert main(words) == 1
    except SystemExit as error:
        assert error.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_names_of_another_library_are_not_fine_tuned(run, tmp_path):
    """Of which MMEngine would load no tensor."""
    save_classes(tmp_path / 'labelled', [40, 200], 2)
    file = tmp_path / 'backbone.safetensors'
    greenmim.export(run.folder, 'timm', out=str(file))
    with pytest.raises(ValueError, match='which MMEngine can load, got .*ba'):
        greenmim.finetune(
            str(file), str(tmp_path / 'labelled'), out=str(tmp_path / 'new'))
    assert not (tmp_path / 'new').exists()


def test_a_library_that_is_not_known(run):
    with pytest.raises(ValueError, match="'timm'.*got 'keras'"):
        greenmim.export(run.folder, 'keras')


def test_a_backbone_that_is_not_known(tmp_path):
    file = tmp_path / 'model.pth'
    torch.save(dict(state_dict={'backbone.conv.weight': torch.zeros(3)}), file)
    with pytest.raises(ValueError):
        greenmim.load(file)


def test_grey_images_however_they_are_given(tmp_path):
    transform = Preprocess(
        32, dict(channels=1),
        dict(
            type='greenmim.ChannelDataPreprocessor',
            mean=[100.],
            std=[50.],
            to_rgb=False))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / 'grey.png')
    expected = transform(tmp_path / 'grey.png')
    assert expected.shape == (1, 32, 32)
    for given in pixels, pixels[..., None], image, image.convert('RGB'):
        assert torch.equal(transform(given), expected)
    flat = transform(np.full((40, 60), 150, np.uint8))
    assert torch.allclose(flat, torch.ones(1, 32, 32))


def test_files_for_a_recipe_that_loads_none(tmp_path):
    """Its own images are photographs of a package."""
    cfg = recipe_of('swin-micro')
    file, _ = save_images(tmp_path, 2, (40, 48))
    sample, = load_samples(cfg, [str(file)], 4)
    assert sample['inputs'].shape == (3, 40, 48)
    with Image.open(file) as image:
        loaded = sample['inputs'].numpy()[::-1].transpose(1, 2, 0)  # of BGR
        assert np.array_equal(loaded, np.asarray(image))
