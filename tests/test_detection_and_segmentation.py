# Copyright (c) greenmim authors. All rights reserved.
"""From a pre-training to detection and segmentation, by the documented lines.

A run of the quick start is exported and fine-tuned on the tiny sets by
MMDetection and MMSegmentation, in processes of their own.
"""
import importlib
import json
import os
import re
import runpy
import shlex
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from tests import processes
from tests.backbones.cmt import arch as cmt_arch
from tests.conftest import CHECKOUT, link_checkout
from tests.micro import scalars_of
from tests.micro_checkpoint import randomise, save_training

pytestmark = pytest.mark.downstream

FOLDER = 'configs/benchmarks'
DETECTOR = (
    f'{FOLDER}/mmdetection/mask-rcnn_swin-micro-w4_fpn_1xb4-8e_photos.py')
SEGMENTOR = (f'{FOLDER}/mmsegmentation/'
             'upernet_swin-micro-w4_1xb4-40i_photos-128x128.py')
PRE_TRAINING = ('configs/quickstart/'
                'greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py')
GREEN = 'greenmim.GreenMIMSwinTransformer'
TYPES = ('mmpretrain.SwinTransformer', GREEN)
# What MMEngine writes of tensors that a file lacks or has too many.
COMPLAINT = re.compile(
    'missing keys|unexpected key|do not match|size mismatch')
RECIPES = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for folder in ('mmdetection', 'mmsegmentation')
    for path in (CHECKOUT / FOLDER / folder).glob('*_8xb2-*.py'))
SWINS = [path for path in RECIPES if '-w7_' in path]
LOGGING = ('randomness.seed=0 default_hooks.logger.interval=1 '
           'log_processor.window_size=1')


class Case:
    """How a library is called, and what it leaves."""

    def __init__(self, library, package, folder, config, short, metrics,
                 checkpoints, iterations):
        self.library = library
        self.train = f'mim train {package} {config} --gpus 0'
        self.tools = f'bash tools/benchmarks/{folder}'
        self.config = config
        self.short = short  # options of a run of a few iterations
        self.metrics = metrics
        self.checkpoints = checkpoints  # of the whole run and the short one
        self.iterations = iterations  # of the whole run
        self.backbone = f'work_dirs/quickstart/backbone_{library}.pth'


CASES = [
    Case('mmdet', 'mmdet', 'mmdetection', DETECTOR,
         'train_cfg.max_epochs=1 train_cfg.val_interval=1',
         ('coco/bbox_mAP', 'coco/segm_mAP'), ('epoch_8.pth', 'epoch_1.pth'),
         48),
    Case(
        'mmseg', 'mmsegmentation', 'mmsegmentation', SEGMENTOR,
        'train_cfg.max_iters=8 train_cfg.val_interval=8 '
        'default_hooks.checkpoint.interval=8', ('mIoU', ),
        ('iter_40.pth', 'iter_8.pth'), 40),
]
of_each_library = pytest.mark.parametrize(
    'case', CASES, ids=lambda case: case.library)


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """A folder with the tiny sets, a pre-training and its two exports.

    It has the checkout's configs and tools, so that documented lines run in
    it as they stand.
    """
    pytest.importorskip('mim', reason='openmim is not installed')
    folder = link_checkout(tmp_path_factory.mktemp('workspace'))
    # `mim` of this environment, wherever openmim itself is installed.
    (folder / 'bin').mkdir()
    (folder / 'bin' / 'mim').write_text(
        f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} -m mim '
        '"$@"\n')
    (folder / 'bin' / 'mim').chmod(0o755)

    lines = [
        'tools/dataset_converters/photographs_to_coco_ade.py data',
        f'tools/train.py {PRE_TRAINING} --work-dir work_dirs/quickstart '
        '--cfg-options train_cfg.max_iters=40 train_dataloader.batch_size=4 '
        'train_dataloader.num_workers=0 '
        'train_dataloader.persistent_workers=False '
        'default_hooks.checkpoint.interval=40',
    ] + [
        'tools/model_converters/export_backbone.py '
        f'work_dirs/quickstart/iter_40.pth --to {case.library} '
        f'--out {case.backbone}' for case in CASES
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv('LOCAL_RANK', '0')
        for line in lines:
            run_in_this_process(patch, line.split())
    return folder


def run_in_this_process(patch, words):
    """A tool of the checkout, with its arguments."""
    patch.setattr(sys, 'argv', words)
    try:
        runpy.run_path(words[0], run_name='__main__')
    except SystemExit as end:
        assert not end.code, f'{words}: {end.code}'


@pytest.fixture
def run(workspace):
    """Run a line in the workspace and return what it prints."""
    environment = processes.cpu_environment()
    environment[
        'PATH'] = f'{workspace / "bin"}{os.pathsep}{environment["PATH"]}'
    return lambda line: processes.run(line, environment, workspace)


def logged(work_dir):
    """The losses of a run's iterations, and its metrics."""
    entries = scalars_of(work_dir)
    losses = [entry['loss'] for entry in entries if 'loss' in entry]
    return torch.tensor(losses), entries[-1]


@of_each_library
def test_fine_tunes_by_the_documented_lines(case, run, workspace):
    """Both types of the backbone train, and evaluation gives a figure."""
    whole, short = case.checkpoints
    log = run(f'{case.train} --work-dir whole_{case.library} '
              f'--cfg-options {LOGGING}')
    assert not COMPLAINT.search(log)
    losses, metrics = logged(workspace / f'whole_{case.library}')
    assert len(losses) == case.iterations and losses.isfinite().all()
    assert losses[-8:].mean() < 0.75 * losses[:8].mean()
    assert all(0.05 < metrics[name] <= 100 for name in case.metrics)
    assert (workspace / f'whole_{case.library}' / whole).is_file()

    log = run(f'{case.tools}/mim_dist_train.sh {case.config} {case.backbone} '
              f'0 model.backbone.type={GREEN} {LOGGING} {case.short} '
              f'--work-dir short_{case.library}')
    assert GREEN in log and not COMPLAINT.search(log)
    green_losses, _ = logged(workspace / f'short_{case.library}')
    # The same weights, images and seed; later steps magnify rounding.
    torch.testing.assert_close(green_losses[0], losses[0], rtol=1e-4, atol=0.)
    assert (workspace / f'short_{case.library}' / short).is_file()

    # What was trained as the one type is tested as the other.
    log = run(f'{case.tools}/mim_dist_test.sh {case.config} '
              f'whole_{case.library}/{whole} 0 '
              f'--work-dir test_{case.library} '
              f'--cfg-options model.backbone.type={GREEN}')
    assert not COMPLAINT.search(log)
    file, = (workspace / f'test_{case.library}').glob('*/*.json')
    tested = json.loads(file.read_text())
    for name in case.metrics:
        assert tested[name] == pytest.approx(metrics[name], rel=1e-2)


@pytest.fixture
def complaints(monkeypatch):
    """What MMEngine writes while it loads weights."""
    messages = []
    monkeypatch.setattr('mmengine.runner.checkpoint.print_log',
                        lambda message, *_, **__: messages.append(message))
    return lambda: [text for text in messages if COMPLAINT.search(text)]


def build(library, cfg):
    registry = importlib.import_module(f'{library}.registry').MODELS
    with DefaultScope.overwrite_default_scope(library):
        return registry.build(cfg)


@of_each_library
@pytest.mark.parametrize('kind', TYPES)
def test_every_tensor_is_used(case, kind, workspace, monkeypatch, complaints):
    monkeypatch.chdir(workspace)
    given = torch.load(case.backbone, weights_only=True)['state_dict']
    trained = torch.load(
        'work_dirs/quickstart/iter_40.pth', weights_only=True)['state_dict']
    cfg = Config.fromfile(case.config).model.backbone
    backbone = build(case.library, dict(cfg, type=kind))
    backbone.init_weights()
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    assert state.keys() == given.keys()
    assert all(torch.equal(state[name], given[name]) for name in state)
    # Nothing of the pre-training is lost, but for what is no backbone.
    in_both = {k for k in trained if k.startswith('backbone.')}
    assert len(in_both) == 85 and in_both <= state.keys()
    assert all(torch.equal(state[name], trained[name]) for name in in_both)
    added = {f'backbone.norm{i}.{n}' for i in range(3)
             for n in ('weight', 'bias')}  # yapf: disable
    assert state.keys() - in_both == added
    assert complaints() == []


PVT_ARCH = dict(
    embed_dims=[8, 16, 40, 64],
    depths=[1, 2, 1, 1],
    num_heads=[1, 2, 5, 8],
    mlp_ratios=[8, 8, 4, 4],
    sr_ratios=[8, 4, 2, 1])
VIT_ARCH = dict(
    embed_dims=24, num_layers=12, num_heads=2, feedforward_channels=48)
# Recipe: a small backbone as it was trained, and what makes the recipe's own
# as small.
SMALL = {
    'upernet_vit-base-p16_8xb2-160k_ade20k-512x512': (dict(
        type='mmpretrain.VisionTransformer',
        arch=VIT_ARCH,
        img_size=224,
        out_type='avg_featmap',
        final_norm=False), dict(arch=VIT_ARCH)),
    'mask-rcnn_cmt-small_fpn_8xb2-ms-3x_coco':
    (dict(type='greenmim.GreenMIMCMT', arch=cmt_arch(),
          img_size=224), dict(arch=cmt_arch())),
    'mask-rcnn_pvt-v2-b2_fpn_8xb2-ms-3x_coco':
    (dict(type='greenmim.GreenMIMPVTv2',
          arch=PVT_ARCH), dict(embed_dims=8, num_layers=PVT_ARCH['depths'])),
}


@pytest.mark.parametrize('name', SMALL)
@torch.no_grad()
def test_other_backbones_take_every_tensor(name, tmp_path, monkeypatch,
                                           complaints):
    """From the exported file, and give the features of the pre-training."""
    cfg, changes = SMALL[name]
    torch.manual_seed(0)
    trained = randomise(build('mmpretrain', cfg))
    text = Config(dict(model=dict(backbone=cfg))).pretty_text
    save_training(tmp_path / 'a.pth', trained, meta=dict(cfg=text))
    path, = (path for path in RECIPES if name in path)
    library = library_of(path)
    out = tmp_path / 'backbone.pth'
    tool = CHECKOUT / 'tools' / 'model_converters' / 'export_backbone.py'
    run_in_this_process(monkeypatch, [
        str(word)
        for word in (tool, tmp_path / 'a.pth', '--to', library, '--out', out)
    ])
    backbone = Config.fromfile(CHECKOUT / path).model.backbone
    backbone.update(changes)
    backbone.init_cfg.checkpoint = str(out)
    model = build(library, backbone)
    for param in model.parameters():
        param.fill_(9.)
    model.init_weights()
    model.eval()
    assert complaints() == []
    assert [n for n, p in model.named_parameters() if p.eq(9.).any()] == []

    x = torch.randn(1, 3, 512, 512)
    maps = model(x)
    assert len(maps) == 4
    if 'vit' in name:  # positions are resized on loading
        reference = build('mmpretrain', dict(cfg, img_size=512))
        reference.load_state_dict(trained.state_dict(), strict=True)
        reference.eval()
        last = trained.ln2(maps[-1].flatten(2).mean(2))
        expected = reference(x)[0]
    else:
        last, expected = maps[-1], trained(x)[-1]
    assert last.shape == expected.shape and expected.std() > 0.1
    assert (last - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_missing_tensor_does_not_go_unnoticed(workspace, tmp_path,
                                                monkeypatch, complaints):
    """The check above can fail."""
    monkeypatch.chdir(workspace)
    content = torch.load(CASES[0].backbone, weights_only=True)
    del content['state_dict']['backbone.norm1.bias']
    torch.save(content, tmp_path / 'damaged.pth')
    cfg = Config.fromfile(DETECTOR).model.backbone
    cfg.init_cfg.checkpoint = str(tmp_path / 'damaged.pth')
    build('mmdet', cfg).init_weights()
    message, = complaints()
    assert 'norm1.bias' in message


def library_of(path):
    return 'mmdet' if 'mmdetection' in path else 'mmseg'


def layers_after(name):
    """How many layers of ViT-B, and the heads, follow a parameter."""
    match = re.match(r'backbone\.(?:layers\.(\d+)\.)?', name)
    if match is None:
        return 0
    return 13 if match[1] is None else 12 - int(match[1])


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.split('/')[-1])
def test_recipe_trains_a_step(path, workspace, monkeypatch):
    """At its full size, but on small images, from its own pipeline."""
    monkeypatch.chdir(workspace)
    library = library_of(path)
    cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = None
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    for transform in cfg.train_dataloader.dataset.pipeline:
        if 'scale' in transform:
            transform.scale = (192, 128)
        if 'scales' in transform:
            transform.scales = [(192, 128), (192, 96)]
        if 'crop_size' in transform:
            transform.crop_size = (128, 128)
    if library == 'mmseg':
        cfg.model.data_preprocessor.size = (128, 128)
    else:
        cfg.model.train_cfg.rpn_proposal.max_per_img = 64

    model = build(library, cfg.model)
    with DefaultScope.overwrite_default_scope(library):
        loader = Runner.build_dataloader(cfg.train_dataloader)
        batch = next(iter(loader))
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    data = model.data_preprocessor(batch, training=True)
    assert len(data['inputs']) == 2
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite()
    loss.backward()
    unused = [
        name for name, param in model.named_parameters() if param.grad is None
    ]
    assert unused == []

    norms = (nn.LayerNorm, nn.SyncBatchNorm)
    spared = {
        f'{prefix}.{name}'
        for prefix, module in model.named_modules()
        if isinstance(module, norms) for name, _ in module.named_parameters()
    }
    tables = ('relative_position_bias_table', 'cls_token', 'pos_embed')
    is_vit = '_vit-' in path
    for name, _ in model.named_parameters():
        if (name.endswith(tables) or 'position_biases' in name
                or is_vit and name.endswith('bias')):
            spared.add(name)
    assert len(spared) > 50
    names = {param: name for name, param in model.named_parameters()}
    rate, decay = (1e-4, 0.05) if library == 'mmdet' else (6e-5, 0.01)
    rate, decay = (3e-4, 0.05) if is_vit else (rate, decay)
    for group in optimizer.param_groups:
        for param in group['params']:
            name = names.pop(param)
            assert group['weight_decay'] == (0 if name in spared else decay)
            scale = 0.75**layers_after(name) if is_vit else 1.
            assert group['lr'] == pytest.approx(rate * scale)
    assert not names, 'parameters that the optimiser does not know'


@pytest.mark.parametrize('path', [DETECTOR, *SWINS[-1:]])
def test_types_are_the_same_network(path):
    """On maps that the windows do not divide, and one below the window."""
    library = library_of(path)
    cfg = Config.fromfile(CHECKOUT / path).model.backbone
    cfg.init_cfg = None
    dense, green = (build(library, dict(cfg, type=kind)) for kind in TYPES)
    green.load_state_dict(dense.state_dict(), strict=True)
    dense.eval(), green.eval()
    images = torch.rand(1, 3, 96, 160)
    with torch.no_grad():
        pairs = list(zip(dense(images), green(images)))
    assert len(pairs) == 4
    assert all(torch.equal(one, other) for one, other in pairs)
