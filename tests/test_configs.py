# Copyright (c) greenmim authors. All rights reserved.
"""Every config builds, and every recipe is what its record says it is.

An AMP wrapper asserts a GPU. Where there is none, the configs are built with
the plain wrapper in its place; all else is theirs.
"""
import ast
import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model.wrappers import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from PIL import Image
from torch import nn

from greenmim.models.selfsup import MaskedImageModeling

CONFIG_DIR = Path(__file__).parents[1] / 'configs'
ALL_FILES = sorted(CONFIG_DIR.rglob('*.py'))
# Those of benchmarks and of other methods have tests of their own.
CONFIGS = [
    p for p in ALL_FILES if not {'_base_', 'benchmarks', 'fastmim', 'simmim'}
    & set(p.relative_to(CONFIG_DIR).parts)
]
# name: (embed dims, windows, base learning rate, batch a GPU, GPUs, epochs)
RECIPES = {
    'greenmim_swin-base_16xb128-amp-coslr-100e_in1k':
        (128, [7, 7, 7, 7], '1.5e-4', 128, 16, 100),
    'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k':
        (128, [7, 7, 7, 7], '1.5e-4', 256, 8, 800),
    'greenmim_swin-base-w7_8xb256-amp-coslr-400e_in1k-128to224px':
        (128, [7, 7, 7, 7], '1.5e-4', 256, 8, 400),
    'greenmim_swin-base-w14_8xb256-amp-coslr-800e_in1k':
        (128, [14, 14, 14, 7], '1.5e-4', 256, 8, 800),
    'greenmim_swin-large-w14_8xb256-amp-coslr-800e_in1k':
        (192, [14, 14, 14, 7], '1e-4', 256, 8, 800),
    'greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k':
        (96, [7, 7, 7, 7], '1.5e-4', 256, 8, 200),
}  # yapf: disable
# Recipes of backbones that the paper does not have: name of the class
OTHER_RECIPES = {
    'greenmim_convnext-base_8xb256-amp-coslr-800e_in1k': 'GreenMIMConvNeXt',
    'greenmim_hivit-base_8xb256-amp-coslr-800e_in1k': 'GreenMIMHiViT',
    'greenmim_pvt-v2-b2_8xb256-amp-coslr-800e_in1k': 'GreenMIMPVTv2',
    'greenmim_swin-v2-base-w8_8xb256-amp-coslr-800e_in1k':
        'GreenMIMSwinTransformerV2',
    'greenmim_twins-pcpvt-base_8xb256-amp-coslr-100e_in1k': 'GreenMIMPCPVT',
    'greenmim_twins-svt-base_8xb256-amp-coslr-100e_in1k': 'GreenMIMSVT',
    'greenmim_twins-svt-large_8xb256-amp-coslr-100e_in1k': 'GreenMIMSVT',
    'greenmim_vit-base-p16_8xb256-amp-coslr-800e_in1k':
        'GreenMIMVisionTransformer',
}  # yapf: disable
WARMUP_EPOCHS = 40


def length(config):
    """The length of a run, in epochs or iterations."""
    by_epoch = 'max_epochs' in config.train_cfg
    return config.train_cfg['max_epochs' if by_epoch else 'max_iters']


def config_id(path):
    return path.relative_to(CONFIG_DIR).with_suffix('').as_posix()


@pytest.fixture(scope='module')
def image_folder(tmp_path_factory):
    """Five images of noise, one of them deeper, and a list of their names."""
    root = tmp_path_factory.mktemp('images')
    (root / 'train' / 'deeper').mkdir(parents=True)
    (root / 'meta').mkdir()
    rng = np.random.default_rng(0)
    names = ['0.jpg', '1.jpg', '2.png', '3.jpg', 'deeper/4.jpg']
    for name in names:
        pixels = rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / 'train' / name)
    (root / 'meta' / 'train.txt').write_text('\n'.join(names))
    return root


@pytest.fixture(scope='module', params=CONFIGS, ids=config_id)
def config(request):
    cfg = Config.fromfile(request.param)
    if cfg.default_scope == 'mmselfsup':
        pytest.importorskip('mmselfsup')
    return cfg


@pytest.fixture(scope='module')
def runner(config, image_folder, tmp_path_factory):
    """A run of the config on a small folder, before its first iteration.

    `train` builds model, pipeline, optimiser, schedule and hooks; the loop
    does nothing.
    """
    cfg = Config(config.to_dict(), filename=config.filename)
    cfg.work_dir = str(tmp_path_factory.mktemp('work_dir'))
    cfg.train_dataloader.update(
        batch_size=2, num_workers=0, persistent_workers=False)
    if 'data_root' in cfg.train_dataloader.dataset:
        cfg.merge_from_dict(
            {'train_dataloader.dataset.data_root': str(image_folder)})
    if (cfg.optim_wrapper.type == 'AmpOptimWrapper'
            and not torch.cuda.is_available()):
        cfg.merge_from_dict({'optim_wrapper.type': 'OptimWrapper'})
    runner = Runner.from_cfg(cfg)
    with pytest.MonkeyPatch.context() as patch:
        for loop in (EpochBasedTrainLoop, IterBasedTrainLoop):
            patch.setattr(loop, 'run', lambda self: None)
        runner.train()
    return runner


def test_every_recipe_exists_and_is_known():
    known = {**RECIPES, **OTHER_RECIPES}
    assert {p.stem for p in CONFIG_DIR.glob('*.py')} == set(known)


def test_base_names_are_unique():
    """`mim train greenmim NAME` searches all folders for the name."""
    names = [p.name for p in ALL_FILES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize('path', ALL_FILES, ids=config_id)
def test_inherits_from_this_project_alone(path):
    bases, depth = [path], 0
    while bases:
        depth += 1
        assert all('::' not in str(base) for base in bases)
        bases = [(base.parent / parent).resolve() for base in bases
                 for parent in Config._get_base_files(str(base))]
        assert all(CONFIG_DIR.resolve() in base.parents for base in bases)
    assert depth <= 3


def test_builds_and_trains_a_step(config, runner):
    assert isinstance(runner.model, MaskedImageModeling)
    assert not is_model_wrapper(runner.model)
    assert isinstance(runner.optim_wrapper, OptimWrapper)
    by_epoch = 'max_epochs' in config.train_cfg
    built = runner.max_epochs if by_epoch else runner.max_iters
    assert built == length(config)
    assert runner.param_schedulers

    batch = next(iter(runner.train_dataloader))
    losses = runner.model.train_step(batch, runner.optim_wrapper)
    assert list(losses) == ['loss']
    assert losses['loss'].isfinite() and losses['loss'] > 0


def test_name_says_what_the_config_does(config):
    name = Path(config.filename).stem
    amp = config.optim_wrapper.type == 'AmpOptimWrapper'
    assert amp == ('-amp-' in name)
    base_batch_size = config.auto_scale_lr.base_batch_size
    gpus, batch_size = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
    assert config.train_dataloader.batch_size == batch_size
    assert gpus * batch_size == base_batch_size
    letter = 'e' if 'max_epochs' in config.train_cfg else 'i'
    named = re.search(rf'-(\d+){letter}[_-]', name + '_')
    assert length(config) == int(named[1])


def test_every_launcher_finds_what_it_needs(config):
    """MMSelfSup's train.py fills in nothing, MMPretrain's little."""
    loader = config.train_dataloader
    assert loader.collate_fn.type == 'default_collate'
    assert loader.persistent_workers == (loader.num_workers > 0)
    assert 'pin_memory' in loader
    checkpoint = config.default_hooks.checkpoint
    assert checkpoint.type == 'greenmim.SafeCheckpointHook'
    assert checkpoint.get('max_keep_ckpts', 2) >= 2
    # Masks and crops differ by rank: by the seeds of samples and steps, or
    # because every process draws on from a seed of its own.
    seeded = config.train_dataloader.sampler.type.startswith('greenmim.Seeded')
    assert seeded != config.randomness.get('diff_rank_seed', False)
    assert ('seed_step' in config.default_hooks) == seeded
    assert 'work_dir' not in config and 'launcher' not in config


@pytest.mark.parametrize(
    'config', [p for p in CONFIGS if p.stem in OTHER_RECIPES],
    ids=config_id,
    indirect=True,
    scope='module')
def test_recipe_of_another_backbone(config, runner):
    """The paper's recipe around it; its weights without a decay are 1-D."""
    model = runner.model
    name = Path(config.filename).stem
    assert type(model.backbone).__name__ == OTHER_RECIPES[name]
    source = Path(config.filename).read_text(encoding='utf-8')
    assert f'configs/{name}.py' in source
    assert 'Measured: not measured by this project.' in source
    planner = model.mask_planner
    scope = 'image' if '_vit-' in name else 'batch'  # MAE's
    assert (planner.mask_ratio, planner.mask_scope) == (0.75, scope)
    unit = model.backbone.unit_size
    assert model.neck.decoder_pred.out_features == unit * unit * 3
    for name, module in model.named_modules():
        assert not getattr(module, 'drop_prob', 0), name
        assert getattr(module, 'eps', 1e-6) == 1e-6, name
    names = {param: name for name, param in model.named_parameters()}
    for group in runner.optim_wrapper.optimizer.param_groups:
        for param in group['params']:
            if not param.requires_grad:
                continue
            expected = 0.05 if param.ndim > 1 else 0
            if re.search('token|pos_embed|cpb_mlp|logit_scale', names[param]):
                expected = 0
            assert group['weight_decay'] == expected, names[param]


of_recipes = pytest.mark.parametrize(
    'config', [p for p in CONFIGS if p.stem in RECIPES],
    ids=config_id,
    indirect=True,
    scope='module')


@pytest.fixture
def recipe(config):
    """A recipe of the paper's kind and the facts about it."""
    return config, RECIPES[Path(config.filename).stem]


@of_recipes
def test_record(recipe):
    cfg, (_, _, base_lr, batch_size, gpus, _) = recipe
    source = Path(cfg.filename).read_text(encoding='utf-8')
    record = ast.get_docstring(ast.parse(source))
    fields = dict(re.findall(r'^(\w+): ((?:.|\n    )+)', record, re.M))
    assert '2205.13515' in fields['Paper']
    assert f'configs/{Path(cfg.filename).name}' in fields['Command']
    assert fields['Hardware'].startswith(f'{gpus} GPUs with {batch_size} ')
    product, arithmetic = fields['Batch'].rstrip('.').split('; learning rate ')
    assert product == f'{gpus} x {batch_size} = {gpus * batch_size}'
    rule, rate = arithmetic.split(' = ')
    assert rule == f'{base_lr} * 2048 / 256'
    assert float(rate) == pytest.approx(float(base_lr) * 2048 / 256)
    assert 'authors' in fields['Expected']
    assert fields['Measured'] == 'not measured by this project.'


@of_recipes
def test_model_of_recipe(recipe, runner):
    _, (embed_dims, windows, *_) = recipe
    model = runner.model
    assert model.backbone.embed_dims == embed_dims
    assert model.neck.in_channels == model.backbone.num_features[-1]
    assert [
        block.attn.w_msa.window_size for stage in model.backbone.stages
        for block in stage.blocks
    ] == [(w, w) for w, stage in zip(windows, model.backbone.stages)
          for _ in stage.blocks]
    planner = model.mask_planner
    assert (planner.mask_ratio, planner.mask_scope) == (0.75, 'batch')
    assert model.head.target.norm
    assert isinstance(model.head.loss_module.penalty, nn.MSELoss)
    assert model.neck.decoder_embed.out_features == 512
    assert model.neck.decoder_pred.out_features == 32 * 32 * 3
    assert len(model.neck.decoder_blocks) == 1
    assert model.neck.decoder_blocks[0].attn.num_heads == 16


@of_recipes
def test_every_layer_norm_of_recipe_has_the_papers_eps(recipe, runner):
    eps = {
        name: module.eps
        for name, module in runner.model.named_modules()
        if isinstance(module, nn.LayerNorm)
    }
    blocks = sum(len(stage.blocks) for stage in runner.model.backbone.stages)
    # patch embedding, blocks, patch merging, output; one decoder block, norm
    assert len(eps) == 1 + 2 * blocks + 3 + 1 + 2 + 1
    assert set(eps.values()) == {1e-6}, eps


@of_recipes
def test_nothing_is_dropped_in_recipe(recipe, runner):
    for name, module in runner.model.named_modules():
        for rate in ('p', 'drop_prob'):
            assert not getattr(module, rate, 0), name


@of_recipes
def test_images_of_recipe(recipe, runner):
    crop, flip = (
        transform
        for transform in runner.train_dataloader.dataset.pipeline.transforms
        if type(transform).__name__ in ('RandomResizedCrop', 'RandomFlip'))
    assert crop.scale == (224, 224)
    assert tuple(crop.crop_ratio_range) == (0.2, 1.0)
    assert crop.interpolation == 'bicubic'
    assert flip.prob == 0.5 and flip.direction == 'horizontal'
    batch = next(iter(runner.train_dataloader))
    data = runner.model.data_preprocessor(batch, training=True)
    assert data['inputs'].shape == (2, 3, 224, 224)
    assert len(runner.train_dataloader.dataset) == 5


@of_recipes
def test_optimiser_of_recipe(recipe, runner):
    cfg, (_, _, base_lr, *_) = recipe
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    default = inspect.signature(AmpOptimWrapper).parameters['loss_scale']
    assert 'loss_scale' not in cfg.optim_wrapper
    assert default.default == 'dynamic'
    assert 'dtype' not in cfg.optim_wrapper  # fp16 on a GPU
    amp = isinstance(runner.optim_wrapper, AmpOptimWrapper)
    assert amp == torch.cuda.is_available()
    assert runner.optim_wrapper.clip_grad_kwargs is None
    optimizer = runner.optim_wrapper.optimizer
    assert type(optimizer) is torch.optim.AdamW

    names = {param: name for name, param in runner.model.named_parameters()}
    decayed = set()
    for group in optimizer.param_groups:
        assert group['betas'] == (0.9, 0.95)
        assert group['initial_lr'] == pytest.approx(
            float(base_lr) * 2048 / 256)
        assert group['weight_decay'] in (0, 0.05)
        group_names = [names.pop(param) for param in group['params']]
        if group['weight_decay']:
            decayed.update(group_names)
    assert not names, 'parameters that the optimiser does not know'
    # Matrices and the patch embedding's kernel decay; biases, norms,
    # relative position bias tables and tokens do not.
    assert decayed == {
        f'{name}.weight'
        for name, module in runner.model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


@of_recipes
def test_loss_of_recipe_under_autocast(recipe, runner):
    """On a GPU the recipe runs under autocast: its arithmetic, on a CPU."""
    batch = next(iter(runner.train_dataloader))
    data = runner.model.data_preprocessor(batch, training=True)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)  # the same mask
        with torch.no_grad(), torch.autocast(
                'cpu', dtype=torch.bfloat16, enabled=enabled):
            losses.append(runner.model(**data, mode='loss')['loss'])
    assert losses[1].dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)


@of_recipes
def test_learning_rate_of_recipe(recipe, runner, monkeypatch):
    """It follows the paper's formula, iteration by iteration."""
    cfg, (_, _, base_lr, _, _, epochs) = recipe
    peak = float(base_lr) * 2048 / 256
    epoch_length = len(runner.train_dataloader)
    warmup, total = WARMUP_EPOCHS * epoch_length, epochs * epoch_length
    # One parameter instead of hundreds of groups.
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    monkeypatch.setattr(runner, 'optim_wrapper', OptimWrapper(optimizer))
    schedulers = runner.build_param_scheduler(cfg.param_scheduler)
    assert not any(scheduler.by_epoch for scheduler in schedulers)

    for iteration in range(total):
        if iteration < warmup:
            # MMEngine reaches the peak one iteration before the warm-up
            # ends, the paper's formula when it has ended.
            expected, tolerance = peak * iteration / warmup, peak / warmup
        else:
            progress = (iteration - warmup) / (total - warmup)
            expected = peak * 0.5 * (1 + math.cos(math.pi * progress))
            tolerance = 1e-6 * peak
        lr = optimizer.param_groups[0]['lr']
        assert lr == pytest.approx(expected, abs=tolerance), iteration
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
