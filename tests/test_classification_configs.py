# Copyright (c) greenmim authors. All rights reserved.
"""Every recipe of classification is what its record says it is."""
import ast
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import (CosineAnnealingLR, LinearLR, OptimWrapper,
                            build_optim_wrapper)
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmpretrain.models.losses import CrossEntropyLoss, LabelSmoothLoss
from mmpretrain.models.utils.batch_augments import CutMix, Mixup
from PIL import Image
from torch import nn

CONFIG_DIR = Path(__file__).parents[1] / 'configs'
FOLDER = CONFIG_DIR / 'benchmarks' / 'classification'
# name: (embed dims, windows, pixels, LayerNorm eps, batch a GPU, base learning
# rate and its batch, layer decay, drop path, least learning rate over batch)
FINE_TUNING = {
    'swin-tiny-w7_8xb96-amp-coslr-100e_in1k':
        (96, [7, 7, 7, 7], 224, 1e-6, 96, '1.25e-3', 0.9, 0.1, 2.5e-7),
    'swin-base-w7_8xb96-amp-coslr-100e_in1k':
        (128, [7, 7, 7, 7], 224, 1e-6, 96, '1.25e-3', 0.9, 0.1, 2.5e-7),
    'swin-base-w14_8xb96-amp-coslr-100e_in1k':
        (128, [14, 14, 14, 7], 224, 1e-6, 96, '1.25e-3', 0.9, 0.1, 2.5e-7),
    'swin-large-w14_8xb96-amp-coslr-100e_in1k':
        (192, [14, 14, 14, 7], 224, 1e-6, 96, '1e-3', 0.8, 0.3, 3.5e-7),
    'swin-base-w6_8xb256-amp-coslr-100e_in1k-192px':
        (128, [6, 6, 6, 6], 192, 1e-5, 256, '1.25e-3', 0.9, 0.1, 2.5e-7),
}  # yapf: disable
LINEAR = 'swin-base-w7_8xb256-amp-linear-coslr-90e_in1k'
# The quick start's Swin on small folders, no recipe of a paper.
MICRO = 'swin-micro-w4_1xb32-coslr-30e_folder-128px'
# Starting learning rate over the peak: 2.5e-7 / 1.25e-3 and 2e-7 / 1e-3.
WARMUP_FACTOR = 2e-4


@pytest.fixture(scope='module', params=[*FINE_TUNING, LINEAR])
def config(request):
    return Config.fromfile(FOLDER / f'{request.param}.py')


def build(cfg):
    return MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.data_preprocessor))


@pytest.fixture(scope='module')
def model(config):
    return build(config)


def name_of(config):
    return Path(config.filename).stem


of_fine_tuning = pytest.mark.parametrize(
    'config', FINE_TUNING, indirect=True, scope='module')
of_linear_probe = pytest.mark.parametrize(
    'config', [LINEAR], indirect=True, scope='module')


@pytest.fixture(scope='module', autouse=True)
def scope():
    """The module's fixtures build before the scope of a test is set."""
    init_default_scope('mmpretrain')


def test_every_recipe_is_known():
    """Those of other pre-trainings have tests of their own."""
    names = {path.stem for path in FOLDER.glob('*.py')}
    names = {n for n in names if not re.search('-(fastmim|simmim)-', n)}
    assert names == {*FINE_TUNING, LINEAR, MICRO}


def test_record(config):
    name = name_of(config)
    source = Path(config.filename).read_text('utf-8')
    record = ast.get_docstring(ast.parse(source))
    fields = dict(re.findall(r'^(\w+): ((?:.|\n    )+)', record, re.M))
    assert re.search(r'arxiv.org/abs/(2205.13515|2111.09886)', fields['Paper'])
    assert f'configs/benchmarks/classification/{name}.py 8' in (
        fields['Command'])
    gpus, batch_size = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
    batch = gpus * batch_size
    assert config.train_dataloader.batch_size == batch_size
    assert config.auto_scale_lr.base_batch_size == batch
    assert fields['Hardware'].startswith(
        f'{gpus} GPUs with {batch_size} images each;')
    product, arithmetic = fields['Batch'].rstrip('.').split('; learning rate ')
    assert product == f'{gpus} x {batch_size} = {batch}'
    rule, rate = arithmetic.split(' = ')
    base_lr, per = ('0.1', 256) if name == LINEAR else (FINE_TUNING[name][5],
                                                        512)
    assert rule == f'{base_lr} * {batch} / {per}'
    lr = float(base_lr) * batch / per
    assert float(rate) == pytest.approx(lr)
    assert config.optim_wrapper.optimizer.lr == pytest.approx(lr)
    assert config.optim_wrapper.type == 'AmpOptimWrapper' and '-amp-' in name
    assert config.train_cfg.max_epochs == int(
        re.search(r'-(\d+)e[_-]', name)[1])
    assert 'authors' in fields['Expected']
    assert fields['Measured'] == 'not measured by this project.'


def test_backbone(config, model):
    name = name_of(config)
    dims, windows, pixels, eps, *_, drop_path, _ = FINE_TUNING.get(
        name, (128, [7, 7, 7, 7], 224, 1e-6, 0., None))
    backbone = model.backbone
    assert type(backbone).__name__ == 'GreenMIMSwinTransformer'
    assert backbone.embed_dims == dims
    assert model.head.fc.in_features == backbone.num_features[-1]
    assert [[block.attn.w_msa.window_size for block in stage.blocks]
            for stage in backbone.stages
            ] == [[(window, window)] * len(stage.blocks)
                  for window, stage in zip(windows, backbone.stages)]
    # Every window divides its map, so that dense and visible-only agree.
    for i, window in enumerate(windows):
        assert pixels // 4 // 2**i % window == 0
    assert {
        module.eps
        for module in model.modules() if isinstance(module, nn.LayerNorm)
    } == {eps}
    rates = [
        module.drop_prob for module in backbone.modules()
        if hasattr(module, 'drop_prob')
    ]
    assert max(rates, default=0.) == pytest.approx(drop_path)
    assert config.model.backbone.init_cfg.type == 'Pretrained'
    assert config.model.backbone.init_cfg.prefix == 'backbone.'


def test_starts_where_a_recipe_of_pre_training_ends(config):
    checkpoint = config.model.backbone.init_cfg.checkpoint
    if checkpoint.startswith('https://download.openmmlab.com/'):
        return
    folder, name, file = checkpoint.split('/')
    recipe = Config.fromfile(CONFIG_DIR / f'{name}.py')
    assert folder == 'work_dirs'
    assert file == f'epoch_{recipe.train_cfg.max_epochs}.pth'
    keys = 'arch', 'window_size', 'norm_cfg', 'patch_cfg', 'stage_cfgs'
    for key in keys:
        assert config.model.backbone[key] == recipe.model.backbone[key]


def test_images(config, tmp_path):
    """Sizes, and the parts of the augmentation."""
    for part in 'train', 'val':
        for label in 'ab':
            (tmp_path / part / label).mkdir(parents=True)
            Image.effect_noise((300, 260),
                               90).save(tmp_path / part / label / '0.png')
    pixels = 192 if name_of(config).endswith('-192px') else 224
    for field in 'train_dataloader', 'val_dataloader', 'test_dataloader':
        cfg = dict(config[field].dataset, data_root=str(tmp_path))
        dataset = DATASETS.build(cfg)
        assert dataset.metainfo['classes'] == ('a', 'b')
        assert dataset[1]['inputs'].shape == (3, pixels, pixels)
        assert dataset[1]['data_samples'].gt_label.item() == 1
    assert config.val_dataloader.dataset == config.test_dataloader.dataset
    _, resize, crop, _ = config.test_dataloader.dataset.pipeline
    assert resize.scale == int(pixels * 256 / 224)
    assert crop.crop_size == pixels
    assert config.test_evaluator == dict(type='Accuracy', topk=(1, 5))
    assert config.val_evaluator == config.test_evaluator

    train = {
        step.type: step
        for step in config.train_dataloader.dataset.pipeline
    }
    assert train['RandomResizedCrop'].interpolation == 'bicubic'
    assert train['RandomFlip'].prob == 0.5
    if name_of(config) == LINEAR:
        assert len(train) == 4
        return
    augment = train['RandAugment']
    assert (augment.policies, augment.num_policies, augment.magnitude_level,
            augment.magnitude_std) == ('timm_increasing', 2, 9, 0.5)
    assert train['RandomErasing'].erase_prob == 0.25


@of_fine_tuning
def test_loss_of_fine_tuning(config, model):
    mixup, cutmix = model.data_preprocessor.batch_augments.augments
    assert isinstance(mixup, Mixup) and isinstance(cutmix, CutMix)
    assert mixup.alpha == 0.8 and cutmix.alpha == 1.
    loss = model.head.loss_module
    assert isinstance(loss, LabelSmoothLoss)
    assert loss.label_smooth_val == 0.1


@of_fine_tuning
def test_optimiser_of_fine_tuning(config, model):
    """Learning rate and decay of every parameter, from the papers' rule."""
    _, _, _, _, batch, base_lr, layer_decay, _, _ = FINE_TUNING[name_of(
        config)]
    assert config.optim_wrapper.clip_grad == dict(max_norm=5.)
    wrapper = build_optim_wrapper(
        model, dict(config.optim_wrapper, type='OptimWrapper'))
    assert isinstance(wrapper, OptimWrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW
    groups = {
        id(param): group
        for group in wrapper.optimizer.param_groups
        for param in group['params']
    }
    peak = float(base_lr) * 8 * batch / 512
    depths = model.backbone.depths
    decayed = set()
    for name, param in model.named_parameters():
        group = groups.pop(id(param))
        below_head = 0
        if name.startswith('backbone.patch_embed.'):
            below_head = sum(depths) + 1
        found = re.match(r'backbone\.stages\.(\d)\.(blocks\.(\d+)|downsample)',
                         name)
        if found:
            stage, part, block = found.groups()
            stage = int(stage)
            # Patch merging moves with the last block before it.
            last = depths[stage] - 1
            block = last if part == 'downsample' else int(block)
            below_head = sum(depths[stage:]) - block
        assert group['lr'] == pytest.approx(peak * layer_decay**below_head)
        assert group['betas'] == (0.9, 0.999)
        assert group['weight_decay'] in (0., 0.05)
        if group['weight_decay']:
            decayed.add(name)
    assert not groups
    assert decayed == {
        f'{name}.weight'
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def test_layer_decay_is_that_of_the_dense_parent():
    cfg = Config.fromfile(FOLDER / 'swin-tiny-w7_8xb96-amp-coslr-100e_in1k.py')
    groups = []
    for kind in 'greenmim.GreenMIMSwinTransformer', 'SwinTransformer':
        cfg.model.backbone.type = kind
        wrapper = build_optim_wrapper(
            build(cfg), dict(cfg.optim_wrapper, type='OptimWrapper'))
        groups.append({
            group['param_name']: (group['lr'], group['weight_decay'])
            for group in wrapper.optimizer.param_groups
        })
    assert groups[0] == groups[1]
    assert len({lr for lr, _ in groups[0].values()}) == 12 + 2


@of_linear_probe
def test_linear_probe_trains_the_classifier_alone(config, model):
    model.train()
    assert [
        name for name, param in model.named_parameters() if param.requires_grad
    ] == ['head.fc.weight', 'head.fc.bias']
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 1 and not norms[0].affine
    assert isinstance(model.head.loss_module, CrossEntropyLoss)
    assert getattr(model.data_preprocessor, 'batch_augments', None) is None
    assert config.optim_wrapper.optimizer.weight_decay == 0


def test_learning_rate(config):
    """It follows the papers' formula, iteration by iteration."""
    name, epoch_length = name_of(config), 3
    peak = config.optim_wrapper.optimizer.lr
    if name == LINEAR:
        warmup, factor, least = 10, 1e-4, 0.
    else:
        batch, minimum = FINE_TUNING[name][4], FINE_TUNING[name][-1]
        warmup, factor = 20, WARMUP_FACTOR
        least = minimum * 8 * batch / 512
    linear, cosine = config.param_scheduler
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedulers = []
    for kind, cfg in (LinearLR, linear), (CosineAnnealingLR, cosine):
        cfg = dict(cfg)
        assert cfg.pop('type') == kind.__name__
        assert cfg.pop('convert_to_iter_based')
        cfg.setdefault('end', config.train_cfg.max_epochs)
        schedulers.append(
            kind.build_iter_from_epoch(
                optimizer, **cfg, epoch_length=epoch_length))

    begin, end = (
        epochs * epoch_length
        for epochs in (warmup, config.train_cfg.max_epochs))
    for i in range(end):
        if i < begin:
            # MMEngine reaches the peak an iteration before the warm-up ends.
            expected = peak * (factor + (1 - factor) * i / (begin - 1))
        else:
            cosine = 0.5 * (1 + math.cos(math.pi * (i - begin) /
                                         (end - begin)))
            expected = least + (peak - least) * cosine
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected), i
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
