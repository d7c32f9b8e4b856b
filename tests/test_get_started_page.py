# Copyright (c) greenmim authors. All rights reserved.
"""docs/get_started.md, from top to bottom, and its options."""
import re
import runpy
import shlex
import shutil
import sys
import uuid
from argparse import ArgumentParser
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from mmpretrain.models import SwinTransformer
from PIL import Image

from greenmim.registry import DATASETS, MODELS
from tests.conftest import CHECKOUT
from tests.documents import Page, lines_of, train_flags

PAGE = Page('docs/get_started.md')
RECIPE = 'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k.py'
# From the first training to the real model. What comes before installs, what
# comes after has placeholders.
WALK = PAGE.text.split('## Train on your own images')[1].split('## Options')[0]
STEPS = [
    block for language, text in PAGE.blocks()
    if language == 'bash' and text in WALK
    for block in PAGE.take('bash', text)
]
MINE, = PAGE.take('python', '_base_')
BACKBONES = PAGE.take('python', 'norm_cfg')
# Arguments with a default, which the config does not hold.
NEW_KEYS = {
    'train_cfg.max_iters',  # of the quick start
    'auto_scale_lr.enable',
    'optim_wrapper.clip_grad.max_norm',
    'optim_wrapper.dtype',
    'model.backbone.with_cp',
    'model.backbone.in_channels',
    'model.neck.out_channels',
    'train_dataloader.dataset.pipeline.0.channels',
    'default_hooks.checkpoint.trusted'
}
SHORTER = [
    'param_scheduler.0.end=1', 'param_scheduler.1.begin=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False'
]
QUICK = ['train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2']
# Four iterations of Swin-T, without a checkpoint of 400 MB.
LARGE = ['train_cfg.max_epochs=2', 'default_hooks.checkpoint.save_last=False']


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A checkout with a folder of images of two shapes."""
    for name in 'configs', 'tools':
        (tmp_path / name).symlink_to(CHECKOUT / name)
    folder = tmp_path / 'data' / 'images'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(4):
        size = [(160, 90, 3), (100, 150, 3)][i % 2]
        noise = rng.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(noise).save(folder / f'{i}.png')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(line):
    """The words of a command as the shell would pass them."""
    words = []
    for word in shlex.split(line):
        words += sorted(glob(word)) if '*' in word else [word]
    return words


def shorten(words):
    """What makes a command as short as a test has to be."""
    script = Path(words[0]).name
    large = 'swin-tiny' in words[1]
    if script in ('train.py', 'forecast.py'):
        options = [*SHORTER, *(LARGE if large else QUICK)]
        if '--resume' in words:
            options.append('train_cfg.max_iters=4')
        if large:
            i = words.index('train_dataloader.batch_size=64')
            words[i] = 'train_dataloader.batch_size=2'
        else:
            options.append('train_dataloader.batch_size=2')
        options.append(f'experiment_name={uuid.uuid4().hex}')
        if '--cfg-options' not in words:
            words.append('--cfg-options')
        words += options
    if script == 'forecast.py':
        words += ['train_cfg.max_epochs=9']
        words[2:2] = ['--steps', '2', '--warmup', '1']
    return words


def run(line, monkeypatch):
    """Run a command of Python in this process, shortened."""
    words = words_of(line)
    assert words[0] == 'python', line
    words = shorten(words[1:])
    monkeypatch.syspath_prepend(str(Path(words[0]).parent.resolve()))
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', words)
    try:
        runpy.run_path(words[0], run_name='__main__')
    except SystemExit as end:
        assert not end.code, f'{line}: {end.code}'
    # Where such a run ends, and where the documented one would.
    file = Path('work_dirs/mine/iter_2.pth')
    if file.is_file():
        shutil.copy(file, file.with_name('iter_600.pth'))


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
    model.init_weights()
    return model


def test_from_top_to_bottom(workspace, monkeypatch, capsys):
    Path('mine.py').write_text(MINE)
    # Swin-T of one block a stage
    shallow = dict(SwinTransformer.arch_zoo['tiny'], depths=[1, 1, 1, 1])
    monkeypatch.setitem(SwinTransformer.arch_zoo, 'tiny', shallow)
    lines = [line for block in STEPS for line in lines_of(block)]
    for line in lines:
        if line.startswith('python'):
            run(line, monkeypatch)
    served = 'tensorboard --logdir work_dirs/watched'  # until it is stopped
    assert [line for line in lines if line[:6] != 'python'] == [served]
    assert len(lines) == 9
    assert 'step' in capsys.readouterr().out  # of the forecast

    assert 'data/images/' in Path('work_dirs/samples.html').read_text()
    assert Path('work_dirs/mine/iter_4.pth').is_file()  # resumed
    assert list(Path('work_dirs/watched').rglob('events.out.tfevents.*'))
    pictures = Path('work_dirs/reconstructions.html').read_text()
    assert pictures.count('<img src="data:') == 5 * 4
    assert list(Path('work_dirs/swin-tiny').rglob('*.log'))


def test_names_of_the_run_folder(workspace, monkeypatch):
    """What "Watch it" says is in it."""
    train = next(
        line for block in STEPS for line in lines_of(block)
        if 'train.py' in line)
    run(train, monkeypatch)
    written = {path.name for path in Path('work_dirs/mine').rglob('*')}
    named = set(re.findall(r'\(`(?:vis_data/)?(\w+\.\w+)`\)', PAGE.text))
    assert named == {'scalars.json', 'report.md'} and named <= written


def test_backbones_of_the_page_hold_what_was_trained(workspace, monkeypatch,
                                                     capsys):
    train, = [line for line in PAGE.commands()
              if line.startswith('python tools/train.py') and
              'work_dirs/mine --cfg-options' in line]  # yapf: disable
    export, = [line for line in PAGE.commands() if 'work_dirs/mine/back' in
               line]  # yapf: disable
    run(train, monkeypatch)
    run(export, monkeypatch)
    assert BACKBONES[0] in capsys.readouterr().out
    trained = torch.load(
        'work_dirs/mine/iter_600.pth', weights_only=True)['state_dict']
    scopes = [{} for _ in BACKBONES]
    for block, scope in zip(BACKBONES, scopes):
        exec(block, scope)
    detector = build(scopes[0]['backbone'])
    classifier = build(scopes[1]['model'])
    for backbone in detector, classifier.backbone:
        assert type(backbone) is SwinTransformer
        for name, tensor in backbone.state_dict().items():
            if not re.match('norm[012]', name):  # a detector's alone
                assert torch.equal(tensor, trained[f'backbone.{name}']), name


@pytest.mark.parametrize('column, package',
                         [(0, 'greenmim'), (1, 'mmpretrain'),
                          (2, 'mmselfsup')])
def test_table_of_flags(column, package):
    if package != 'greenmim' and find_spec(package) is None:
        pytest.skip(f'{package} is not installed in this environment')
    rows = dict(
        re.findall(r'^\| `(--[a-z-]+)` \| ((?:yes|no)[yesno |]*) \|$',
                   PAGE.text, re.M))
    known = train_flags(package)
    assert set(rows) >= known - {'--launcher', '--local-rank'}
    for flag, cells in rows.items():
        expected = 'yes' if flag in known else 'no'
        assert cells.split(' | ')[column] == expected, flag


def merge(cfg, options):
    """Merge options as `--cfg-options` does."""
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(['--cfg-options', *options])
    cfg.merge_from_dict(args.cfg_options)


@pytest.mark.parametrize('name',
                         ['README.md', 'docs/get_started.md', 'docs/faq.md'])
def test_options_exist(name):
    text = Page(name).text
    options = re.findall(r'(?<![\w/-])[a-z_]+\.[\w.]+=[^\s`"]+', text)
    assert options
    for option in options:
        key, value = option.split('=', 1)
        cfg = Config.fromfile(CHECKOUT / 'configs' / RECIPE)
        if key not in NEW_KEYS and value != 'work_dirs/mine':
            held = cfg
            for part in key.split('.'):
                held = held[int(part) if part.isdigit() else part]
        merge(cfg, [option])


def test_options_for_grey_images_fit_together(tmp_path):
    line, = [line for line in PAGE.commands() if 'in_channels' in line]
    cfg = Config.fromfile(CHECKOUT / 'configs' / RECIPE)
    cfg.model.backbone.arch = 'tiny'
    cfg.model.neck.in_channels = 768
    cfg.train_dataloader.dataset.data_root = str(tmp_path)
    merge(cfg, shlex.split(line.split('--cfg-options')[1]))

    Image.effect_noise((48, 64), 50).save(tmp_path / 'noise.png')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = default_collate([dataset[0], dataset[0]])
    data = model.data_preprocessor(batch, training=True)
    assert data['inputs'].shape == (2, 1, 224, 224)
    assert model(**data, mode='loss')['loss'].isfinite()
