# Copyright (c) greenmim authors. All rights reserved.
"""Recipes that train what was pre-trained: classifiers, detectors and more.

Their models are built in full size without values; a training step of each is
taken in test_tools/test_classification.py and, in the other environment, in
test_detection_and_segmentation.py.
"""
import copy
import re
from functools import partial

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.models import SwinTransformer
from mmpretrain.models.losses import CrossEntropyLoss, LabelSmoothLoss
from torch import nn

from greenmim.models import GreenMIMCMT, GreenMIMPVTv2
from tests.recipes import (CLASSIFICATION, DOWNSTREAM, check_windows, find,
                           load, pixels_of, recipe_id)
from tests.test_pretraining_configs import arches, shrink

PAPERS = [path for path in CLASSIFICATION if '_in1k' in path.stem]
LINEAR = find('swin-base-w7_8xb256-amp-linear-coslr-90e_in1k')
FINE_TUNING = [path for path in PAPERS if path != LINEAR]
DETECTION = [path for path in DOWNSTREAM if path.stem.endswith('_coco')]
SEGMENTATION = [path for path in DOWNSTREAM if 'ade20k' in path.stem]


def build(cfg, device='meta'):
    init_default_scope('mmpretrain')
    with pytest.MonkeyPatch.context() as patch:
        # Rates of drop path are read back.
        patch.setattr(torch, 'linspace', partial(torch.linspace, device='cpu'))
        with torch.device(device):
            return MODELS.build(cfg)


@pytest.fixture(scope='module')
def path(request):
    return request.param


@pytest.fixture(scope='module')
def model(path):
    """The classifier in its full size, without values."""
    config = load(path)
    cfg = config.model.to_dict()
    cfg['backbone'].pop('init_cfg')
    return build(dict(cfg, data_preprocessor=config.data_preprocessor))


def recipes(paths):
    return pytest.mark.parametrize(
        'path', paths, ids=recipe_id, indirect=True, scope='module')


# By the papers; the first pattern that is found in the file name holds.
LAYER_DECAY = {
    'vit.*-simmim': 0.65,
    '(large|huge).*-simmim|vit.*-fastmim': 0.7,
    'large|-fastmim|-simmim-800e': 0.8,
    '': 0.9,
}
DROP_PATH = {
    'upernet_vit': 0.1,
    'upernet|rcnn_swin-base': 0.3,
    'rcnn|(large|huge).*-simmim': 0.2,
    'large': 0.3,
    '': 0.1,
}
BASE_RATE = {
    'vit.*-fastmim': (6e-4, 256),
    '-fastmim': (1e-3, 256),
    'large-w14_8xb96': (1e-3, 512),
    '': (1.25e-3, 512),
}


def fact(table, path):
    return next(value for pattern, value in table.items()
                if re.search(pattern, path.stem))


@recipes(FINE_TUNING)
def test_fine_tuning_is_that_of_the_paper(path, model):
    config = load(path)
    wrapper, batch = config.optim_wrapper, config.auto_scale_lr.base_batch_size
    base, per = fact(BASE_RATE, path)
    assert wrapper.optimizer.lr == pytest.approx(base * batch / per)
    assert wrapper.optimizer.betas == (0.9, 0.999)
    assert wrapper.optimizer.weight_decay == 0.05
    assert wrapper.clip_grad == dict(max_norm=5.)
    decay = wrapper.paramwise_cfg.layer_decay_rate
    assert decay == fact(LAYER_DECAY, path)
    drop_path = max(
        getattr(module, 'drop_prob', 0.) for module in model.modules())
    assert drop_path == pytest.approx(fact(DROP_PATH, path))

    mixup, cutmix = model.data_preprocessor.batch_augments.augments
    assert (mixup.alpha, cutmix.alpha) == (0.8, 1.)
    assert isinstance(model.head.loss_module, LabelSmoothLoss)
    assert model.head.loss_module.label_smooth_val == 0.1
    check_windows(path, model.backbone)


def test_every_parameter_has_the_papers_rate_and_decay():
    """The rates follow the formula; Swin-T has those of its dense parent."""
    config = load(find('swin-tiny-w7_8xb96-amp-coslr-100e_in1k'))
    depths, rates = (2, 2, 6, 2), []
    for kind in 'greenmim.GreenMIMSwinTransformer', 'SwinTransformer':
        model = build(
            dict(
                config.model,
                backbone=dict(config.model.backbone, type=kind,
                              init_cfg=None)))
        wrapper = build_optim_wrapper(
            model, dict(config.optim_wrapper, type='OptimWrapper'))
        groups = {
            id(param): group
            for group in wrapper.optimizer.param_groups
            for param in group['params']
        }
        decayed = {
            f'{name}.weight'
            for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d))
        }
        rates.append({})
        for name, param in model.named_parameters():
            group, below_head = groups.pop(id(param)), 0
            if name.startswith('backbone.patch_embed.'):
                below_head = sum(depths) + 1
            found = re.match(
                r'backbone\.stages\.(\d)\.(blocks\.(\d+)|downsample)', name)
            if found:
                stage, part, block = found.groups()
                # Patch merging has the rate of the last block before it.
                last = depths[int(stage)] - 1
                block = last if part == 'downsample' else int(block)
                below_head = sum(depths[int(stage):]) - block
            expected = 1.25e-3 * 768 / 512 * 0.9**below_head
            assert group['lr'] == pytest.approx(expected), name
            assert group['weight_decay'] == 0.05 * (name in decayed), name
            rates[-1][name] = group['lr']
        assert not groups
    assert rates[0] == rates[1]
    assert len(set(rates[0].values())) == 12 + 2


@recipes([LINEAR])
def test_linear_probe_trains_the_classifier_alone(path, model):
    model.train()
    assert [
        name for name, param in model.named_parameters() if param.requires_grad
    ] == ['head.fc.weight', 'head.fc.bias']
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 1 and not norms[0].affine
    assert isinstance(model.head.loss_module, CrossEntropyLoss)
    assert getattr(model.data_preprocessor, 'batch_augments', None) is None
    optimizer = load(path).optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay) == ('LARS', 0)


@recipes([path for path in CLASSIFICATION if '_folder-32' not in path.stem])
def test_images_of_classification(path, labelled):
    """Sizes, and the parts of the augmentation."""
    config, pixels = load(path), pixels_of(path)
    init_default_scope('mmpretrain')
    for field in 'train_dataloader', 'test_dataloader':
        dataset = DATASETS.build(
            dict(config[field].dataset, data_root=str(labelled)))
        assert dataset.metainfo['classes'][1] == 'class1'
        sample = dataset[len(dataset) // 6]
        assert sample['inputs'].shape == (3, pixels, pixels)
        assert sample['data_samples'].gt_label.item() == 1
    train = {
        step.type: step
        for step in config.train_dataloader.dataset.pipeline
    }
    assert train['RandomFlip'].prob == 0.5
    if path not in PAPERS:
        return
    assert config.val_dataloader.dataset == config.test_dataloader.dataset
    resize = config.test_dataloader.dataset.pipeline[1]
    assert resize.scale == int(pixels * 256 / 224)
    assert (len(train) == 4) == (path == LINEAR)


@recipes(CLASSIFICATION)
def test_runner_of_mmengine(path, tmp_path):
    """It needs no launcher of ours on a CPU; here with a small backbone.

    Data: test_images_of_classification.
    """
    cfg = Config(copy.deepcopy(load(path).to_dict()), filename=str(path))
    cfg.work_dir = str(tmp_path)
    backbone = cfg.model.backbone
    if isinstance(backbone.arch, str):
        kind = re.sub('^Vision', 'greenmim.GreenMIMVision', backbone.type)
        backbone.arch = arches()[kind][0]
    runner = Runner.from_cfg(cfg)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert not isinstance(wrapper, AmpOptimWrapper)


def origin_of(path):
    """A recipe's backbone, and the pre-training that its weights are from."""
    backbone = load(path).model.backbone
    assert backbone.init_cfg.type == 'Pretrained'
    folder, run, file = backbone.init_cfg.checkpoint.split('/')
    assert folder == 'work_dirs'
    if run == 'quickstart':
        run = 'greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px'
    return backbone, load(find(run)), file


@pytest.mark.parametrize(
    'path', [
        path for path in PAPERS
        if 'download' not in load(path).model.backbone.init_cfg.checkpoint
    ],
    ids=recipe_id)
def test_classifier_begins_where_pre_training_ends(path):
    """Small models of both recipes: one loads the weights of the other."""
    backbone, trained, file = origin_of(path)
    assert file == f'epoch_{trained.train_cfg.max_epochs}.pth'
    assert backbone.init_cfg.prefix == 'backbone.'
    source = build(shrink(trained), 'cpu').backbone
    for param in source.parameters():
        nn.init.normal_(param, std=.1)
    for i, module in enumerate(source.modules()):
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_mean, i)

    arch, _ = arches()[trained.model.backbone.type]
    if path.stem.startswith('vit') and 'fastmim' in path.stem:
        arch = dict(arch, num_heads=2 * arch['num_heads'])
    target = build(dict(backbone, arch=arch, init_cfg=None), 'cpu')
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


@pytest.mark.parametrize('path', DETECTION + SEGMENTATION, ids=recipe_id)
def test_schedule_of_a_dense_task(path):
    """Rates and decays: test_detection_and_segmentation.py."""
    config = load(path)
    warmup, decay = config.param_scheduler
    if path in SEGMENTATION:
        assert (warmup.end, decay.begin) == (1500, 1500)
        assert (decay.type, decay.power, decay.eta_min) == ('PolyLR', 1., 0.)
    else:
        assert warmup.end == 1000
        assert decay.milestones == ([27, 33] if '3x' in path.stem else [8, 11])
    assert config.model.backbone.drop_path_rate == fact(DROP_PATH, path)


def widths_of(backbone):
    """Channels of the stages."""
    kind, arch = backbone.type.split('.')[-1], backbone.get('arch')
    if kind == 'VisionTransformer':
        return [768] * 4
    if kind == 'PyramidVisionTransformerV2':
        return GreenMIMPVTv2.arch_zoo['b2']['embed_dims']
    if kind == 'GreenMIMCMT':
        return GreenMIMCMT.arch_zoo[arch]['embed_dims']
    if isinstance(arch, str):
        arch = SwinTransformer.arch_zoo[arch]
    return [arch['embed_dims'] * 2**i for i in range(4)]


@pytest.mark.parametrize('path', DOWNSTREAM, ids=recipe_id)
def test_heads_fit_the_backbone(path):
    model = load(path).model
    widths = list(widths_of(model.backbone))
    if path.parent.name == 'mmdetection':
        assert model.neck.in_channels == widths
        cascade = path.stem.startswith('cascade')
        assert (model.type == 'CascadeRCNN') == cascade
        head = model.get('roi_head', model).bbox_head
        assert isinstance(head, list) == cascade
    else:
        assert model.decode_head.in_channels == widths
        auxiliary = model.auxiliary_head
        assert auxiliary.in_channels == widths[auxiliary.in_index]


@pytest.mark.parametrize('path', DOWNSTREAM, ids=recipe_id)
def test_dense_task_begins_where_pre_training_ends(path):
    """Its weights come by init_cfg alone, from a run of this project."""
    backbone, trained, file = origin_of(path)
    library = dict(mmdetection='mmdet', mmsegmentation='mmseg')
    assert file == f'backbone_{library[path.parent.name]}.pth'
    trained = trained.model.backbone
    if 'swin' in path.stem:
        assert backbone.type == 'mmpretrain.SwinTransformer'
        assert backbone.pad_small_map
        assert backbone.out_indices == (0, 1, 2, 3)
        assert backbone.init_cfg.prefix == 'backbone.'
        keys = ['arch', 'norm_cfg', 'patch_cfg', 'stage_cfgs']
        if '-scp-' in path.stem:  # exported with another window
            assert (backbone.window_size, trained.window_size) == (7, 4)
        else:
            keys.append('window_size')
    elif 'vit' in path.stem:
        assert backbone.type == f'mmpretrain.{trained.type}'
        # Maps between the layers have no norm, nor has the exported file.
        assert (backbone.out_type, backbone.final_norm) == ('featmap', False)
        assert backbone.out_indices[-1] == 11
        keys = ['arch', 'patch_size']
    elif 'cmt' in path.stem:
        keys = ['type', 'arch']
    else:
        arch = GreenMIMPVTv2.arch_zoo[trained.arch]
        assert backbone.embed_dims == arch['embed_dims'][0]
        assert backbone.num_layers == arch['depths']
        for key in ('num_heads', 'mlp_ratios', 'sr_ratios'):
            assert backbone[key] == arch[key]
        # MMDetection's class loads the file as it is.
        assert not backbone.convert_weights
        assert 'prefix' not in backbone.init_cfg
        keys = ['norm_cfg']
    for key in keys:
        assert backbone[key] == trained[key], key
