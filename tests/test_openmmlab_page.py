# Copyright (c) greenmim authors. All rights reserved.
"""docs/openmmlab.md, from top to bottom, and its options."""
import re
import shlex
import shutil
from argparse import ArgumentParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from mmpretrain.models import SwinTransformer
from PIL import Image

from greenmim.registry import DATASETS, MODELS
from tests.conftest import CHECKOUT
from tests.documents import Page, lines_of, run_line, short_run, train_flags
from tests.micro import save_images

PAGE = Page('docs/openmmlab.md')
RECIPE = 'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k.py'
# From the first training to the real model. What comes before installs, what
# comes after has placeholders.
WALK = PAGE.text.split('## Train on your own images')[1].split('## Options')[0]
LINES = [
    line for language, text in PAGE.blocks()
    if language == 'bash' and text in WALK
    for block in PAGE.take('bash', text) for line in lines_of(block)
]
PAGE.take('python', '_base_')
BACKBONES = PAGE.take('python', 'norm_cfg')
# Arguments with a default, which the config does not hold.
NEW_KEYS = {
    'train_cfg.max_iters',  # of the quick start
    'auto_scale_lr.enable',
    'optim_wrapper.clip_grad.max_norm',
    'optim_wrapper.dtype',
    'model.backbone.with_cp',
    'model.backbone.compile_blocks',
    'model.backbone.frozen_stages',
    'model.backbone.in_channels',
    'model.neck.out_channels',
    'train_dataloader.dataset.pipeline.0.channels',
    'default_hooks.checkpoint.trusted'
}


@pytest.fixture
def run(workspace, run_tool, monkeypatch):
    """Run a line of the page, shortened; images of two shapes are there."""
    save_images(Path('data/images/tall'), 2, (160, 90))
    save_images(Path('data/images/wide'), 2, (100, 150))
    # Swin-T of one block a stage
    shallow = dict(SwinTransformer.arch_zoo['tiny'], depths=[1, 1, 1, 1])
    monkeypatch.setitem(SwinTransformer.arch_zoo, 'tiny', shallow)

    def start(line):
        options = []
        if '/train.py' in line or 'forecast.py' in line:
            options = short_run(2, by_epoch='swin-tiny' in line)
            if 'swin-tiny' in line:  # without a checkpoint of 400 MB
                options[1] = 'default_hooks.checkpoint.save_last=False'
        if '--resume' in line:
            options[0] = 'train_cfg.max_iters=4'
        if 'forecast.py' in line:
            line = line.replace('--cfg', '--steps 2 --warmup 1 --cfg')
            options[0] = 'train_cfg.max_epochs=9'
        run_line(run_tool, line, *options)
        # Where such a run ends, and where the documented one would.
        file = Path('work_dirs/mine/iter_2.pth')
        if file.is_file():
            shutil.copy(file, file.with_name('iter_600.pth'))

    return start


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
    model.init_weights()
    return model


def test_from_top_to_bottom(run, capsys):
    assert PAGE.write_configs() == ['mine.py']
    served = 'tensorboard --logdir work_dirs/watched'  # until it is stopped
    assert LINES.count(served) == 1 and len(LINES) == 9
    for line in LINES:
        if line != served:
            run(line)
        if 'export_backbone' in line:
            exported = Path('work_dirs/mine/iter_600.pth')
            trained = torch.load(exported, weights_only=True)['state_dict']
    printed = capsys.readouterr().out
    assert 'step' in printed  # of the forecast

    assert 'data/images/' in Path('work_dirs/samples.html').read_text()
    assert Path('work_dirs/mine/iter_4.pth').is_file()  # resumed
    assert list(Path('work_dirs/watched').rglob('events.out.tfevents.*'))
    pictures = Path('work_dirs/reconstructions.html').read_text()
    assert pictures.count('<img src="data:') == 6 * 4
    assert list(Path('work_dirs/swin-tiny').rglob('*.log'))

    # What "Watch it" says is in the folder of a run.
    written = {path.name for path in Path('work_dirs/mine').rglob('*')}
    named = set(re.findall(r'\(`(?:vis_data/)?(\w+\.\w+)`\)', PAGE.text))
    assert named == {'scalars.json', 'report.md'} and named <= written

    # The backbones of the page hold what was trained.
    # Paths are printed in full, and in lines of their own if long.
    here = BACKBONES[0].replace("'work_dirs/", f"'{Path.cwd()}/work_dirs/")
    assert ''.join(here.split()) in ''.join(printed.split())
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
                         ['README.md', 'docs/openmmlab.md', 'docs/faq.md'])
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
