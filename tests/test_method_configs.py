# Copyright (c) greenmim authors. All rights reserved.
"""Recipes of SimMIM, FastMIM and their crossings: what they build and do.

Each takes one step as it is. All else is tested on the meta device, or with a
micro backbone in the place of the recipe's.
"""
import ast
import copy
import math
import os
import random
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import (CosineAnnealingLR, LinearLR, MultiStepLR,
                            OptimWrapper, build_optim_wrapper)
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image
from torch import nn

from tests import test_configs as common
from tests.conftest import skip_or_fail

CONFIG_DIR = Path(__file__).parents[1] / 'configs'
RECIPES = sorted((CONFIG_DIR / 'fastmim').glob('*.py')) + sorted(
    (CONFIG_DIR / 'simmim').glob('*.py'))
# name: (channels of the latent, decoder's blocks, units along a side, values
# of a unit, base learning rate and its batch, warm-up, epochs, eps)
FACTS = {
    'fastmim_swin-base-w4_8xb256-amp-coslr-400e_in1k-128px':
        (1024, 4, 4, 432, '1.5e-4', 256, 10, 400, {1e-5}),
    'fastmim_vit-base-p16_8xb512-amp-coslr-800e_in1k-128px':
        (768, 1, 8, 108, '1.5e-4', 256, 20, 800, {1e-6}),
    'fastmim_pvt-v2-b2_8xb256-amp-coslr-400e_in1k-128px':
        (512, 4, 4, 432, '1.5e-4', 256, 10, 400, {1e-5, 1e-6}),
    'fastmim_cmt-small_8xb256-amp-coslr-400e_in1k-128px':
        (512, 4, 4, 432, '1.5e-4', 256, 10, 400, {1e-5, 1e-6}),
    'greenmim-fast_swin-base-w4_8xb256-amp-coslr-400e_in1k-128px':
        (1024, 1, 4, 432, '1.5e-4', 256, 10, 400, {1e-5}),
    'simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px':
        (1024, None, 6, 3072, '2e-4', 512, 10, 100, {1e-5}),
    'simmim_swin-base-w6_8xb256-amp-steplr-800e_in1k-192px':
        (1024, None, 6, 3072, '1e-4', 512, 10, 800, {1e-5}),
    'simmim_swin-large-w12_16xb128-amp-steplr-800e_in1k-192px':
        (1536, None, 6, 3072, '1e-4', 512, 10, 800, {1e-5}),
    'simmim_swin-v2-huge-w12_32xb64-amp-steplr-800e_in1k-192px':
        (2816, None, 6, 3072, '1e-4', 512, 10, 800, {1e-5}),
    'simmim_vit-base-p16_8xb256-amp-steplr-800e_in1k':
        (768, None, 7, 3072, '1e-4', 512, 10, 800, {1e-6}),
}  # yapf: disable


def arches(swin, vit, stages):
    """Of each type of backbone, and the channels of its latent."""
    swin_dims = 8 * swin['embed_dims']
    return {
        'greenmim.GreenMIMSwinTransformer': (swin, swin_dims),
        'greenmim.GreenMIMSwinTransformerV2':
            (dict(swin, extra_norm_every_n_blocks=0), swin_dims),
        'greenmim.GreenMIMVisionTransformer': (vit, vit['embed_dims']),
        'greenmim.GreenMIMPVTv2': (stages, stages['embed_dims'][-1]),
        'greenmim.GreenMIMCMT':
            (dict(stages, stem_channels=stages['embed_dims'][0] // 2),
             stages['embed_dims'][-1]),
        'BEiTViT': (vit, vit['embed_dims']),
    }  # yapf: disable


RATIOS = dict(mlp_ratios=[2, 2, 2, 2], sr_ratios=[8, 4, 2, 1])
MICRO = arches(
    dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1],
         num_heads=[1, 1, 2, 2], **RATIOS))  # yapf: disable
# Large enough to learn something in a minute.
SMALL = arches(
    dict(embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 4]),
    dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96),
    dict(embed_dims=[16, 32, 64, 96], depths=[1, 1, 1, 1],
         num_heads=[1, 2, 4, 4], **RATIOS))  # yapf: disable


@pytest.fixture(scope='module', autouse=True)
def scope():
    """The module's fixtures build before the scope of a test is set."""
    init_default_scope('mmpretrain')


@pytest.fixture(scope='module', params=RECIPES, ids=lambda path: path.stem)
def config(request):
    return Config.fromfile(request.param)


def name_of(config):
    return Path(config.filename).stem


def pixels_of(config):
    found = re.search(r'-(\d+)px$', name_of(config))
    return int(found[1]) if found else 224


def micro(config):
    """The config of the algorithm with a micro backbone and decoder."""
    return shrink(config, MICRO)


def shrink(config, arches):
    """The config of the algorithm with a backbone of these."""
    cfg = copy.deepcopy(config.model)
    arch, channels = arches[cfg.backbone.type]
    cfg.backbone.arch = arch
    cfg.neck.in_channels = channels
    if 'embed_dims' in cfg.neck:
        cfg.neck.update(embed_dims=32, num_heads=2, depth=1)
    return dict(cfg, data_preprocessor=config.data_preprocessor)


@pytest.fixture(scope='module')
def full(config):
    """The model in its full size, without values."""
    with pytest.MonkeyPatch.context() as patch:
        # Rates of drop path are read back.
        patch.setattr(torch, 'linspace', partial(torch.linspace, device='cpu'))
        with torch.device('meta'):
            return MODELS.build(config.model)


def test_every_recipe_is_known():
    assert {path.stem for path in RECIPES} == set(FACTS)


def test_common_demands(config):
    common.test_name_says_what_the_config_does(config)
    common.test_every_launcher_finds_what_it_needs(config)


def test_record(config):
    *_, base_lr, per, _, epochs, _ = FACTS[name_of(config)]
    folder = Path(config.filename).parent.name
    source = Path(config.filename).read_text('utf-8')
    record = ast.get_docstring(ast.parse(source))
    fields = dict(re.findall(r'^(\w+): ((?:.|\n    )+)', record, re.M))
    papers = {'fastmim': '2212.06593', 'simmim': '2111.09886'}
    assert papers[folder] in fields['Paper']
    gpus, batch_size = map(
        int,
        re.search(r'_(\d+)xb(\d+)-', name_of(config)).groups())
    assert f'configs/{folder}/{name_of(config)}.py {gpus}' in fields['Command']
    assert fields['Hardware'].startswith(
        f'{gpus} GPUs with {batch_size} images each;')
    batch = gpus * batch_size
    lr = float(base_lr) * batch / per
    product, arithmetic = fields['Batch'].rstrip('.').split('; learning rate ')
    assert product == f'{gpus} x {batch_size} = {batch}'
    rule, rate = arithmetic.split(' = ')
    assert rule == f'{base_lr} * {batch} / {per}'
    assert float(rate) == pytest.approx(lr)
    assert config.optim_wrapper.optimizer.lr == pytest.approx(lr)
    assert config.train_cfg.max_epochs == epochs
    assert 'authors' in fields['Expected']
    assert fields['Measured'] == 'not measured by this project.'


def _latent_channels(neck):
    layer = neck.linear if hasattr(neck, 'linear') else neck.decoder_embed
    return layer.in_features


def test_full_size(config, full):
    """Parts fit each other, with the sizes of the papers."""
    channels, depth, side, values, *_, eps = FACTS[name_of(config)]
    assert _latent_channels(full.neck) == channels
    backbone = full.backbone
    pixels = pixels_of(config)
    assert pixels // full.unit_size == side
    assert {m.eps
            for m in full.modules() if isinstance(m, nn.LayerNorm)} == eps
    green = name_of(config).startswith('greenmim')
    simmim = name_of(config).startswith('simmim')
    assert full.mask_planner.mask_scope == ('batch' if green else 'image')
    assert full.mask_planner.mask_ratio == (0.6 if simmim else 0.75)
    if simmim:
        assert full.mask_space == 'embed'
        assert full.neck.linear.out_features * full.neck.tokens_side**2 == (
            values)
        assert not full.head.target.norm
        assert isinstance(full.head.loss_module.penalty, nn.L1Loss)
    else:
        assert len(full.neck.decoder_blocks) == depth
        assert full.neck.decoder_pred.out_features == values
        assert full.head.target.norm
        assert isinstance(full.head.loss_module.penalty, nn.MSELoss)
    # Windows divide their maps.
    for i, stage in enumerate(getattr(backbone, 'stages', ())):
        for block in getattr(stage, 'blocks', ()):
            window = getattr(block.attn, 'w_msa', block.attn).window_size[0]
            assert pixels // 4 // 2**i % window == 0
    rates = [getattr(m, 'drop_prob', 0.) for m in backbone.modules()]
    assert max(rates) == pytest.approx(0.1 if 'simmim_vit' in
                                       name_of(config) else 0.)


@pytest.fixture
def samples(config, tmp_path):
    """Two images of noise in the recipe's pipeline."""
    rng = np.random.default_rng(0)
    for i in range(2):
        noise = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f'{i}.png')
    dataset = DATASETS.build(
        dict(config.train_dataloader.dataset, data_root=str(tmp_path)))
    return [dataset[0], dataset[1]]


def take_a_step(config, model_cfg, samples):
    """A step in fp32: the model and its optimiser."""
    model = MODELS.build(model_cfg)
    model.init_weights()
    wrapper = build_optim_wrapper(
        model, dict(config.optim_wrapper, type='OptimWrapper'))
    reached = set()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for name, param in trained.items():
        param.register_hook(lambda _, name=name: reached.add(name))
    losses = model.train_step(default_collate(samples), wrapper)
    assert list(losses) == ['loss']
    assert losses['loss'].isfinite() and losses['loss'] > 0
    assert reached == set(trained)
    return trained, wrapper


def test_full_size_takes_a_step(config, full, samples):
    """Weights, gradients and both moments are four times the weights."""
    size = sum(4 * param.nbytes for param in full.parameters())
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if memory < 1.5 * size:
        skip_or_fail(f'{size / 2**30:.0f} GiB of weights, gradients and '
                     f'moments are much for {memory / 2**30:.0f} GiB')
    cfg = dict(config.model, data_preprocessor=config.data_preprocessor)
    take_a_step(config, cfg, samples[:1])


def test_a_micro_model_takes_a_step(config, samples):
    """With the recipe's images, optimiser and schedule."""
    pixels = pixels_of(config)
    assert samples[0]['inputs'].shape == (3, pixels, pixels)
    trained, wrapper = take_a_step(config, micro(config), samples)

    optimizer = wrapper.optimizer
    assert type(optimizer) is torch.optim.AdamW
    simmim = name_of(config).startswith('simmim')
    assert optimizer.defaults['betas'] == (0.9, 0.999 if simmim else 0.95)
    assert wrapper.clip_grad_kwargs == (dict(max_norm=5.) if simmim else None)
    decay = {
        id(param): group['weight_decay']
        for group in optimizer.param_groups
        for param in group['params']
    }
    for name, param in trained.items():
        exempt = param.ndim == 1 or name.endswith('.bias')
        if simmim:
            exempt |= name.endswith(
                ('mask_token', 'relative_position_bias_table', 'cls_token'))
        assert decay[id(param)] == (0. if exempt else 0.05), name


def test_learning_rate(config):
    *_, warmup, epochs, _ = FACTS[name_of(config)]
    peak, length = config.optim_wrapper.optimizer.lr, 2
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    kinds = dict(
        LinearLR=LinearLR,
        CosineAnnealingLR=CosineAnnealingLR,
        MultiStepLR=MultiStepLR)
    schedulers = []
    for cfg in config.param_scheduler:
        cfg = dict(cfg)
        kind = kinds[cfg.pop('type')]
        cfg.setdefault('end', epochs)
        assert cfg.pop('convert_to_iter_based')
        schedulers.append(
            kind.build_iter_from_epoch(optimizer, **cfg, epoch_length=length))
    simmim = name_of(config).startswith('simmim')
    least = 1e-5 * peak / (2e-4) if simmim else 0.
    first = optimizer.param_groups[0]['lr']
    assert 0 < first <= peak / 100
    for i in range(epochs * length):
        lr = optimizer.param_groups[0]['lr']
        if i >= warmup * length:
            progress = (i / length - warmup) / (epochs - warmup)
            expected = least + (peak - least) * 0.5 * (
                1 + math.cos(math.pi * progress))
            if '-steplr-' in name_of(config):
                expected = peak * (0.1 if i >= 700 * length else 1)
            assert lr == pytest.approx(expected, abs=1e-6 * peak), i
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_small_model_learns_from_photographs(config):
    """On views, crops and masks that are new in every step.

    The loss is that of views it was not trained on, in evaluation mode.
    """
    batch_size, steps, num_held_out = 8, 60, 16
    pipeline = config.train_dataloader.dataset.pipeline
    assert pipeline[0].type == 'greenmim.LoadImage'
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    views = DATASETS.build(
        dict(
            type='greenmim.SamplePhotographs',
            num_views=batch_size * steps + num_held_out,
            pipeline=pipeline[1:]))
    held_out = default_collate([views[i] for i in range(num_held_out)])
    model = MODELS.build(shrink(config, SMALL))
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


@pytest.mark.parametrize(
    'backbone', [name for name in MICRO if name.startswith('greenmim.')])
def test_green_x_fast_is_blind_to_what_is_masked(backbone):
    """No bit of the latent changes, in whatever backbone."""
    cfg = Config.fromfile(CONFIG_DIR / 'fastmim' /
                          'greenmim-fast_swin-base-w4_8xb256-amp-coslr-400e_'
                          'in1k-128px.py')
    arch, channels = MICRO[backbone]
    cfg = dict(
        cfg.model,
        backbone=dict(type=backbone, arch=arch, drop_path_rate=0.),
        neck=dict(
            cfg.model.neck, in_channels=channels, embed_dims=32, num_heads=2))
    if backbone.endswith('VisionTransformer'):
        cfg['backbone'].update(unit_size=32, patch_size=32, img_size=128)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    images = torch.randn(2, 3, 128, 128)
    plan = model._plan(images, None)
    assert plan.layout.num_visible == 4
    masked = ~plan.layout.visible
    masked = masked.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    latent, _ = model.encode(images, plan)
    for filling in torch.randn_like(images), torch.full_like(images, math.nan):
        changed = torch.where(masked, filling, images)
        assert torch.equal(model.encode(changed, plan)[0], latent)
    loss = model.head.loss(
        model.neck(latent, plan.layout), images, plan.layout)
    loss.backward()
    for name, param in model.named_parameters():
        assert param.grad is not None and param.grad.isfinite().all(), name


FINE_TUNING = {
    path.stem: path
    for path in (CONFIG_DIR / 'benchmarks' / 'classification').glob('*.py')
    if re.search('-(fastmim|simmim)-', path.stem)
}
# name: (base learning rate and its batch, layer decay, drop path, channels)
FINE_TUNING_FACTS = {
    'swin-base-w7_8xb256-amp-coslr-100e_in1k-simmim-100e':
        ('1.25e-3', 512, 0.9, 0.1, 1024),
    'swin-base-w7_8xb256-amp-coslr-100e_in1k-simmim-800e':
        ('1.25e-3', 512, 0.8, 0.1, 1024),
    'swin-large-w14_8xb256-amp-coslr-100e_in1k-simmim-800e':
        ('1.25e-3', 512, 0.7, 0.2, 1536),
    'swin-v2-huge-w14_8xb32-amp-coslr-100e_in1k-simmim-800e':
        ('1.25e-3', 512, 0.7, 0.2, 2816),
    'swin-v2-huge-w16_8xb32-amp-coslr-100e_in1k-simmim-800e-512px':
        ('1.25e-3', 512, 0.7, 0.2, 2816),
    'vit-base-p16_8xb256-amp-coslr-100e_in1k-simmim-800e':
        ('1.25e-3', 512, 0.65, 0.1, 768),
    'swin-base-w7_8xb128-amp-coslr-100e_in1k-fastmim-400e':
        ('1e-3', 256, 0.8, 0.1, 1024),
    'vit-base-p16_8xb128-amp-coslr-100e_in1k-fastmim-800e':
        ('6e-4', 256, 0.7, 0.1, 768),
    'pvt-v2-b2_8xb128-amp-coslr-100e_in1k-fastmim-400e':
        ('1e-3', 256, 0.8, 0.1, 512),
    'cmt-small_8xb128-amp-coslr-100e_in1k-fastmim-400e':
        ('1e-3', 256, 0.8, 0.1, 512),
}  # yapf: disable
of_fine_tuning = pytest.mark.parametrize('name', FINE_TUNING_FACTS)


def test_every_fine_tuning_is_known():
    assert FINE_TUNING.keys() == FINE_TUNING_FACTS.keys()


@of_fine_tuning
def test_record_of_fine_tuning(name):
    base_lr, per, decay, drop_path, _ = FINE_TUNING_FACTS[name]
    cfg = Config.fromfile(FINE_TUNING[name])
    gpus, batch_size = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
    batch = gpus * batch_size
    record = ast.get_docstring(ast.parse(FINE_TUNING[name].read_text('utf-8')))
    fields = dict(re.findall(r'^(\w+): ((?:.|\n    )+)', record, re.M))
    assert f'configs/benchmarks/classification/{name}.py {gpus}' in (
        fields['Command'])
    product, arithmetic = fields['Batch'].rstrip('.').split('; learning rate ')
    assert product == f'{gpus} x {batch_size} = {batch}'
    rule, rate = arithmetic.split(' = ')
    assert rule == f'{base_lr} * {batch} / {per}'
    lr = float(base_lr) * batch / per
    assert float(rate) == pytest.approx(lr)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr)
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == decay
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.train_dataloader.batch_size == batch_size
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_cfg.max_epochs == 100
    assert fields['Measured'] == 'not measured by this project.'


@of_fine_tuning
def test_fine_tuning_begins_where_pre_training_ends(name, tmp_path):
    """The full size is built; the micro one loads a micro pre-training."""
    cfg = Config.fromfile(FINE_TUNING[name])
    channels = FINE_TUNING_FACTS[name][-1]
    init = cfg.model.backbone.pop('init_cfg')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, 'linspace', partial(torch.linspace, device='cpu'))
        with torch.device('meta'):
            full = MODELS.build(cfg.model)
    assert full.head.fc.in_features == channels

    folder, run, file = init.checkpoint.split('/')
    recipe, = (path for path in RECIPES if path.stem == run)
    trained = Config.fromfile(recipe)
    assert folder == 'work_dirs'
    assert file == f'epoch_{trained.train_cfg.max_epochs}.pth'
    source = MODELS.build(micro(trained)).backbone
    for param in source.parameters():
        nn.init.normal_(param, std=.1)
    for i, module in enumerate(source.modules()):
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_mean, i)

    arch, _ = MICRO[trained.model.backbone.type]
    if name.startswith('vit') and 'fastmim' in name:
        arch = dict(arch, num_heads=2 * arch['num_heads'])
    target = MODELS.build(dict(cfg.model.backbone, arch=arch))
    missing, unexpected = target.load_state_dict(
        source.state_dict(), strict=False)
    assert all(key.startswith('ln2.') or key.endswith(
        ('relative_position_index', 'relative_coords_table'))
               for key in missing)  # yapf: disable
    assert all(key.startswith('ln1.') for key in unexpected)
    if trained.model.backbone.get('use_shared_rel_pos_bias'):
        shared = source.rel_pos_bias.relative_position_bias_table
        assert shared.std() > 0.05
        for layer in target.layers:
            table = layer.attn.relative_position_bias_table
            assert torch.equal(table, shared)
    depths = {
        target.get_layer_depth(f'backbone.{key}', 'backbone.')[0]
        for key, _ in target.named_parameters()
    }
    assert 0 in depths and len(depths) >= 4
