# Copyright (c) greenmim authors. All rights reserved.
"""Short names of backbones."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import greenmim
from greenmim.apis import backbones
from greenmim.apis.backbones import (BACKBONES, EmptyOnMeta, find_recipe,
                                     recipe_of, recipes)
from greenmim.apis.loading import _with_maps
from greenmim.benchmarking.records import record_speed, recorded_speed
from greenmim.command import main
from greenmim.models import backbones as classes
from greenmim.registry import MODELS


@pytest.fixture(scope='module')
def found():
    return {one.backbone: one for one in recipes()}


def test_every_family_has_names(found):
    """Each class that computes visible units alone, and a micro size."""
    families = {recipe_of(name).model.backbone.type for name in BACKBONES}
    assert families == {
        f'greenmim.{name}'
        for name in classes.__all__ if name.startswith('GreenMIM')
    }
    assert len([name for name in BACKBONES if name.endswith('-micro')]) == 9
    assert set(found) == set(BACKBONES)


def test_sizes_are_the_usual_ones(found):
    """Parameters in millions, of the backbones' papers."""
    millions = {
        'swin-tiny': 28, 'swin-small': 49, 'swin-base': 87,
        'swin-large': 195, 'convnext-tiny': 28, 'convnext-base': 88,
        'pvt-v2-b2': 25, 'twins-svt-base': 55, 'vit-small': 22,
        'vit-base': 86, 'vit-large': 303
    }  # yapf: disable
    for name, number in millions.items():
        assert abs(found[name].parameters / 1e6 - number) < 1, name
    assert found['swin-micro'].image_size == 128
    assert found['convnext-micro'].image_size == 128
    assert found['swin-v2-base'].image_size == 256


@pytest.mark.parametrize('name', BACKBONES)
def test_the_decoder_fits(name):
    """Its input has the channels of the last norm of the backbone."""
    cfg = recipe_of(name)
    with DefaultScope.overwrite_default_scope('mmpretrain'), EmptyOnMeta():
        backbone = MODELS.build(cfg.model.backbone)
    vectors = [
        parameter for parameter in backbone.parameters() if parameter.ndim == 1
    ]
    assert len(vectors[-1]) == cfg.model.neck.in_channels


@pytest.mark.parametrize(
    'name', [name for name in BACKBONES if name.endswith('-micro')])
def test_a_loaded_backbone_returns_maps(name):
    """Of every family, with the tensors that it was pre-trained with."""
    settings = recipe_of(name).model.backbone.to_dict()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loaded = MODELS.build(_with_maps(settings)).eval()
        names = MODELS.build(settings).state_dict().keys()
    assert loaded.state_dict().keys() == names
    assert loaded(torch.zeros(1, 3, 128, 128))[-1].ndim == 4


def test_a_micro_recipe_computes_a_loss():
    cfg = recipe_of('twins-svt-micro')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    loss = model([torch.rand(2, 3, 128, 128)], mode='loss')['loss']
    assert loss.isfinite()


def test_unknown_names_get_a_hint():
    with pytest.raises(ValueError, match="did you mean 'swin-tiny'"):
        recipe_of('swin-tinny')
    name = 'greenmim_swin-base_16xb128-amp-coslr-100e_in1k'
    for given in (name, f'{name}.py', f'configs/{name}.py'):
        assert find_recipe(given).stem == name
    with pytest.raises(FileNotFoundError, match=f'did you mean {name!r}'):
        find_recipe(f'{name}0')


def test_the_recipes_of_an_installed_wheel(tmp_path, monkeypatch):
    """Which lie in the package."""
    file = tmp_path / '.mim' / 'configs' / 'a' / 'mine.py'
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setattr(backbones, 'PACKAGE', tmp_path)
    assert find_recipe('mine') == file


def test_a_recipe_is_printed_or_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ['recipes', '--recipe', 'swin-micro']
    assert main(words) == 0
    Path('printed.py').write_text(capsys.readouterr().out, 'utf-8')
    assert main([*words, '--out', 'new/written.py']) == 0
    recipe = recipe_of('swin-micro').to_dict()
    for path in 'printed.py', 'new/written.py':
        assert Config.fromfile(path).to_dict() == recipe, path
    # No file is replaced, and no recipe is guessed.
    assert main([*words, '--out', 'printed.py']) == 1
    assert 'there is printed.py' in capsys.readouterr().err
    assert main(['recipes', '--out', 'other.py']) == 1
    assert '--recipe with --out' in capsys.readouterr().err
    assert not Path('other.py').exists()


def test_the_list_is_printed(capsys, tmp_path, monkeypatch):
    """With the speed of what was forecast on this machine."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    record_speed(recipe_of('swin-tiny'), 80.)
    other = recipe_of('swin-micro')
    other.model.mask_ratio = 0.5
    record_speed(other, 100.)
    backbones.print_recipes()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(BACKBONES) == 1 + len(greenmim.recipes())
    assert re.match(r'swin-tiny +27\.5 M +224 +greenmim_swin-tiny', lines[2])
    assert lines[2].endswith(' 12.5 s')
    assert [line.endswith(' not measured') for line in lines[1:]].count(0) == 1
    assert recipes()[1].images_per_second == 80
    # A damaged file, and a home that cannot be written to.
    file = tmp_path / 'greenmim' / 'forecasts.json'
    file.write_text('{')
    assert recorded_speed(recipe_of('swin-tiny')) is None
    monkeypatch.setenv('XDG_CACHE_HOME', str(file))
    record_speed(other, 100.)
    assert 'not kept' in capsys.readouterr().out
