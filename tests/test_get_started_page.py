# Copyright (c) greenmim authors. All rights reserved.
"""docs/get_started.md and the first lines of README.md, in order."""
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import SwinTransformer

import greenmim
from greenmim.command import COMMANDS, main
from greenmim.registry import MODELS
from tests.documents import Page, lines_of
from tests.micro import save_classes, save_images

PAGE = Page('docs/get_started.md')
README = Page('README.md')
BLOCKS = [(language, text) for language, text in PAGE.blocks()
          if language == 'python' or text.startswith('greenmim ')]
PAGE.take('python')
PAGE.take('bash', 'greenmim ')
FIRST = [*README.take('bash', 'greenmim pretrain'), *README.take('python')]
# As short as a test has to be.
SHORT = dict(pretrain=dict(steps=2, batch_size=2),
             finetune=dict(epochs=1, batch_size=4),
             forecast=dict(steps=1, warmup=1, only='time'))  # yapf: disable


def run_command(line):
    words = shlex.split(line)
    assert words[0] == 'greenmim', line
    for name, value in SHORT.get(words[1], {}).items():
        words += [f'--{name.replace("_", "-")}', str(value)]
    assert main(words[1:]) == 0, line


def run_python(text):
    for name in 'pretrain', 'finetune':
        options = ', '.join(f'{k}={v}' for k, v in SHORT[name].items())
        text = re.sub(rf'(greenmim\.{name}\(.*)\)', rf'\1, {options})', text)
    scope = {}
    exec(text, scope)
    return scope


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_images(Path('photos'), 5, (150, 140))
    save_classes(Path('labelled'), [(200, 40, 40), (40, 200, 40)], 15, 0)


def test_from_top_to_bottom(photos, capsys):
    scopes = []
    for language, text in BLOCKS:
        if language == 'bash':
            for line in lines_of(text):
                run_command(line)
        elif '_base_' in text:
            Path('mine.py').write_text(text)
        else:
            scopes.append(run_python(text))
    printed = capsys.readouterr().out
    assert 'swin-tiny' in printed  # of the list
    run, extracted, loaded, exported, tuned = scopes

    # Command and Python do the same.
    mine = greenmim.read_run('work_dirs/mine')
    assert run['run'].held_out_losses == mine.held_out_losses
    table = Path('work_dirs/features.csv').read_text().splitlines()
    assert len(table) == 6 and extracted['features'].shape == (5, 384)
    row = np.array(table[1].split(',')[1:], dtype=float)
    assert np.allclose(row, extracted['features'][0], atol=1e-5)
    assert table[1].split(',')[0] == extracted['paths'][0] == 'photos/0.png'

    # The backbone that a detector builds from what was printed.
    assert loaded['maps'][0].shape == (1, 384, 4, 4)
    assert exported['exported'].code in printed
    scope = {}
    exec(exported['exported'].code, scope)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone = MODELS.build(scope['backbone'])
    backbone.init_weights()
    backbone.eval()
    image = greenmim.preprocess('work_dirs/mine')('photos/0.png')[None]
    assert torch.allclose(backbone(image)[-1], loaded['maps'][0], atol=1e-5)

    assert 0 <= tuned['classifier'].accuracy <= 100
    for name in ('samples.html', 'reconstructions.html', 'knn.json',
                 'photos.tar', 'recipe/config.py'):
        assert Path('work_dirs', name).is_file(), name


def test_the_first_lines_of_the_readme(photos, monkeypatch):
    # Swin-T of one block a stage
    shallow = dict(SwinTransformer.arch_zoo['tiny'], depths=[1, 1, 1, 1])
    monkeypatch.setitem(SwinTransformer.arch_zoo, 'tiny', shallow)
    for line in lines_of(FIRST[0]):
        run_command(line)
    run_python(FIRST[1])
    for number in 1, 2:
        assert list(Path(f'work_dirs/swin-tiny_{number}').glob('*mmdet.pth'))


@pytest.mark.parametrize('page', [PAGE, README], ids=lambda page: page.name)
def test_every_command_is_named(page):
    named = set(re.findall(r'\bgreenmim ([a-z]+)\b', page.text))
    assert named & set(COMMANDS)
    steps = {'pretrain', 'reconstruct', 'features', 'finetune', 'export'}
    assert steps <= named
