# Copyright (c) greenmim authors. All rights reserved.
"""Every recipe of pre-training builds, trains a step and keeps to its paper.

By MMEngine's own runner: a hook of the recipes leaves out AMP without a GPU.
"""
import copy
import inspect
import os
import random
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.model.wrappers import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from greenmim.models import GreenMIMHead, HOGTarget
from greenmim.models.selfsup import MaskedImageModeling
from tests.conftest import skip_or_fail
from tests.micro import save_images
from tests.recipes import (PRE_TRAINING, check_windows, find, load, pixels_of,
                           recipe_id, record_of)

# 658 million parameters; the other Swin V2 and SimMIM recipes have its parts.
HUGE = find('simmim_swin-v2-huge-w12_32xb64-amp-steplr-800e_in1k-192px')


def arches():
    """A small architecture of each backbone, and its latent's channels."""
    swin = dict(embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 4])
    vit = dict(
        embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)
    stages = dict(
        embed_dims=[16, 32, 64, 96],
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 4],
        mlp_ratios=[2, 2, 2, 2],
        sr_ratios=[8, 4, 2, 1])
    return {
        'greenmim.GreenMIMSwinTransformer': (swin, 192),
        'greenmim.GreenMIMSwinTransformerV2':
        (dict(swin, extra_norm_every_n_blocks=0), 192),
        'greenmim.GreenMIMVisionTransformer': (vit, 48),
        'greenmim.GreenMIMPVTv2': (stages, 96),
        'greenmim.GreenMIMCMT': (dict(stages, stem_channels=8), 96),
        'BEiTViT': (vit, 48),
    }


def shrink(config):
    """The config of the algorithm with a small backbone and decoder."""
    cfg = copy.deepcopy(config.model)
    cfg.backbone.arch, cfg.neck.in_channels = arches()[cfg.backbone.type]
    if 'embed_dims' in cfg.neck:
        cfg.neck.update(embed_dims=32, num_heads=2, depth=1)
    return dict(cfg, data_preprocessor=config.data_preprocessor)


@pytest.fixture(scope='module')
def image_folder(tmp_path_factory):
    """Five images of noise, one of them deeper, and a list of their names."""
    root = tmp_path_factory.mktemp('images')
    files = save_images(root / 'train', 4, (40, 64))
    files += save_images(root / 'train' / 'deeper', 1, (64, 40))
    (root / 'meta').mkdir()
    names = [str(file.relative_to(root / 'train')) for file in files]
    (root / 'meta' / 'train.txt').write_text('\n'.join(names))
    return root


def recipes(paths):
    return pytest.mark.parametrize(
        'path', paths, ids=recipe_id, indirect=True, scope='module')


each_recipe = recipes([
    pytest.param(path, marks=pytest.mark.slow) if path == HUGE else path
    for path in PRE_TRAINING
])


@pytest.fixture(scope='module')
def path(request):
    return request.param


def shallow(backbone):
    """The architecture with two blocks a stage at most, as wide as it is."""
    kind, arch = MMPRETRAIN_MODELS.get(backbone.type), backbone.arch
    if isinstance(arch, str):
        zoo = getattr(kind, 'arch_zoo', None) or kind.arch_settings
        arch = copy.deepcopy(zoo[arch])
    if 'num_layers' in arch:
        return dict(arch, num_layers=2)
    if 'HiViT' in backbone.type:  # which refuses a shallow last stage
        return arch
    return dict(arch, depths=[min(depth, 2) for depth in arch['depths']])


def make_runner(path, image_folder, work_dir, **changes):
    """A run of the recipe on a small folder, before its first iteration.

    `train` builds model, pipeline, optimiser, schedule and hooks; the loop
    does nothing.
    """
    cfg = Config(copy.deepcopy(load(path).to_dict()), filename=str(path))
    if cfg.default_scope == 'mmselfsup':
        pytest.importorskip('mmselfsup')
    cfg.update(changes, work_dir=str(work_dir))
    cfg.train_dataloader.update(
        batch_size=1 if path.parent.name == 'simmim' else 2,
        num_workers=0,
        persistent_workers=False)
    if 'data_root' in cfg.train_dataloader.dataset:
        cfg.train_dataloader.dataset.data_root = str(image_folder)
    teacher = cfg.model.head.get('target', {}).get('backbone')
    if teacher:  # one of its kind, with random weights
        timm = pytest.importorskip('timm')
        teacher.update(depth=1, checkpoint=str(image_folder / 'teacher.pth'))
        network = timm.create_model(
            teacher.model_name, num_classes=0, depth=teacher.depth)
        torch.save(network.state_dict(), teacher.checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        for loop in (EpochBasedTrainLoop, IterBasedTrainLoop):
            patch.setattr(loop, 'run', lambda self: None)
        runner = Runner.from_cfg(cfg)
        runner.train()
    return runner


@pytest.fixture(scope='module')
def runner(path, image_folder, tmp_path_factory):
    """As wide as the recipe says, and shallow, as depth takes time alone."""
    model = copy.deepcopy(load(path).model)
    init_default_scope('mmpretrain')
    model.backbone.arch = shallow(model.backbone)
    return make_runner(
        path,
        image_folder,
        tmp_path_factory.mktemp('work_dir'),
        model=model.to_dict())


def check_step(path, runner):
    """Every parameter that is trained has a gradient."""
    model, reached = runner.model, set()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    handles = [
        param.register_hook(lambda _, name=name: reached.add(name))
        for name, param in trained.items()
    ]
    batch = next(iter(runner.train_dataloader))
    inputs = batch['inputs']
    inputs = inputs[0] if isinstance(inputs, list) else inputs
    assert inputs.shape[1:] == (3, pixels_of(path), pixels_of(path))
    losses = model.train_step(batch, runner.optim_wrapper)
    for handle in handles:
        handle.remove()
    assert list(losses) == ['loss']
    assert losses['loss'].isfinite() and losses['loss'] > 0
    assert reached == set(trained)


@each_recipe
def test_builds_and_trains_a_step(path, runner):
    assert not is_model_wrapper(runner.model)
    assert runner.param_schedulers
    if load(path).model.type.startswith('greenmim.'):
        assert isinstance(runner.model, MaskedImageModeling)
    check_step(path, runner)


@pytest.mark.slow
@pytest.mark.parametrize(
    'path', PRE_TRAINING, ids=recipe_id, indirect=True, scope='function')
def test_trains_a_step_in_full_size(path, image_folder, tmp_path):
    if path == HUGE:  # weights, gradients and both moments
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        if memory < 16 * 2**30:
            skip_or_fail('658 M parameters take about 16 GiB to train, got '
                         f'{memory / 2**30:.0f} GiB')
    check_step(path, make_runner(path, image_folder, tmp_path))


def test_largest_recipe_trains_a_step_in_small(image_folder, tmp_path):
    model = shrink(load(HUGE))
    check_step(HUGE, make_runner(HUGE, image_folder, tmp_path, model=model))


PAPERS = [
    path for path in PRE_TRAINING
    if '_in1k' in path.stem and path.parent.name != 'distillation'
]
papers = recipes([
    pytest.param(path, marks=pytest.mark.slow) if path == HUGE else path
    for path in PAPERS
])


def method_of(path):
    """The method whose data, target and schedule the recipe has."""
    method = path.parent.name
    return method if method in ('fastmim', 'simmim') else 'greenmim'


@papers
def test_masks_and_target_are_those_of_the_paper(path, runner):
    model, method = runner.model, method_of(path)
    simmim, green = method == 'simmim', path.stem.startswith('greenmim')
    assert {
        'greenmim': '2205.13515',
        'simmim': '2111.09886',
        'fastmim': '2212.06593'
    }[method] in record_of(path)['Paper'] or method == 'greenmim'
    planner = model.mask_planner
    # MAE draws a mask for each image, as do SimMIM and FastMIM.
    batch = green and '_vit-' not in path.stem
    assert planner.mask_scope == ('batch' if batch else 'image')
    assert planner.mask_ratio == (0.6 if simmim else 0.75)
    unit, head, neck = model.unit_size, model.head, model.neck
    small = '_vit-|_hivit-' if green else '_vit-'
    assert unit == (16 if re.search(small, path.stem) and not simmim else 32)
    assert isinstance(head, GreenMIMHead) and head.target.norm != simmim
    penalty = nn.L1Loss if simmim else nn.MSELoss
    assert isinstance(head.loss_module.penalty, penalty)
    if simmim:
        assert model.mask_space == 'embed'
        return
    assert isinstance(head.target, HOGTarget) == (method == 'fastmim')
    width, heads = (512, 16) if green else (256, 8)
    assert neck.decoder_embed.out_features == width
    assert neck.decoder_blocks[0].attn.num_heads == heads
    if '_vit-' in path.stem:
        depth = 8 if green else 1
    else:
        depth = 1 if green else 4
    assert len(neck.decoder_blocks) == depth


@papers
def test_layers_are_those_of_the_paper(path, runner):
    """Windows that divide their maps, eps of the norms, nothing dropped."""
    model, method = runner.model, method_of(path)
    check_windows(path, model.backbone)
    eps = {
        module.eps
        for module in model.modules() if isinstance(module, nn.LayerNorm)
    }
    expected = {1e-6} if method == 'greenmim' else {1e-5}
    if '_vit-' in path.stem:
        expected = {1e-6}
    elif method == 'fastmim' and 'swin' not in path.stem:
        expected = {1e-5, 1e-6}  # of the decoder and of the blocks
    assert eps == expected
    rates = [
        getattr(module, name, 0.) for module in model.modules()
        for name in ('p', 'drop_prob')
    ]
    assert max(rates) == pytest.approx(0.1 if 'simmim_vit' in
                                       path.stem else 0.)


@papers
def test_optimiser_is_that_of_the_paper(path, runner):
    """AdamW; vectors do not decay, nor tables and tokens except FastMIM's."""
    config, method = load(path), method_of(path)
    wrapper = config.optim_wrapper
    assert wrapper.type == 'AmpOptimWrapper'
    default = inspect.signature(AmpOptimWrapper).parameters['loss_scale']
    assert 'loss_scale' not in wrapper and default.default == 'dynamic'
    assert 'dtype' not in wrapper  # fp16 on a GPU
    simmim = method == 'simmim'
    assert runner.optim_wrapper.clip_grad_kwargs == (
        dict(max_norm=5.) if simmim else None)
    base, per = (1e-4, 512) if simmim else (1.5e-4, 256)
    if simmim and '-100e_' in path.stem:
        base = 2e-4
    if method == 'greenmim' and 'swin-large' in path.stem:
        base = 1e-4
    batch = config.auto_scale_lr.base_batch_size
    assert wrapper.optimizer.lr == pytest.approx(base * batch / per)

    optimizer = runner.optim_wrapper.optimizer
    assert type(optimizer) is torch.optim.AdamW
    names = {
        param: name
        for name, param in runner.model.named_parameters()
        if param.requires_grad
    }
    exempt = r'\.bias$'
    if method != 'fastmim':
        exempt += '|token|pos_embed|bias_table|cpb_mlp|logit_scale'
    for group in optimizer.param_groups:
        assert group['betas'] == (0.9, 0.999 if simmim else 0.95)
        for param in group['params']:
            if param.requires_grad:
                name = names.pop(param)
                decays = param.ndim > 1 and not re.search(exempt, name)
                assert group['weight_decay'] == 0.05 * decays, name
    assert not names, 'parameters that the optimiser does not know'


# One of each algorithm and target; others of them are slow.
LEARNING = ('greenmim-fast_swin-base', 'fastmim_pvt-v2', 'simmim_vit-base')
SLOW = ('fastmim_swin-base', 'fastmim_vit-base', 'fastmim_cmt',
        'simmim_swin-base-w6_8xb256-amp-coslr', 'simmim_swin-v2-huge')


@pytest.mark.parametrize(
    'path', [
        pytest.param(
            path, marks=[pytest.mark.slow] * path.stem.startswith(SLOW))
        for path in PAPERS if path.stem.startswith(LEARNING + SLOW)
    ],
    ids=recipe_id)
def test_small_model_learns_from_photographs(path):
    """On views, crops and masks that are new in every step.

    The loss is that of views it was not trained on, in evaluation mode.
    """
    config = load(path)
    batch_size, steps, num_held_out = 8, 60, 16
    pipeline = config.train_dataloader.dataset.pipeline
    assert pipeline[0].type == 'greenmim.LoadImage'
    init_default_scope('mmpretrain')
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    views = DATASETS.build(
        dict(
            type='greenmim.SamplePhotographs',
            num_views=batch_size * steps + num_held_out,
            pipeline=pipeline[1:]))
    held_out = default_collate([views[i] for i in range(num_held_out)])
    model = MODELS.build(shrink(config))
    model.init_weights()

    @torch.no_grad()
    def measure():
        model.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of the mask
            data = model.data_preprocessor(held_out, training=False)
            loss = model(**data, mode='loss')['loss'].item()
        model.train()
        return loss

    before = measure()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), 1e-3))
    for start in range(num_held_out, len(views), batch_size):
        samples = [views[i] for i in range(start, start + batch_size)]
        model.train_step(default_collate(samples), wrapper)
    assert measure() < 0.95 * before
