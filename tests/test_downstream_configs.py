# Copyright (c) greenmim authors. All rights reserved.
"""The recipes of detection and segmentation are what their records say.

They are read without the libraries that run them; training is tested in
test_detection_and_segmentation.py.
"""
import ast
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from greenmim.models import GreenMIMPVTv2
from tests.conftest import CHECKOUT

FOLDER = CHECKOUT / 'configs' / 'benchmarks'
# name: (channels of the stages, epochs or iterations, drop path)
TINY, BASE = [96, 192, 384, 768], [128, 256, 512, 1024]
DETECTION = {
    'mask-rcnn_swin-tiny-w7_fpn_8xb2-1x_coco': (TINY, 12, 0.2),
    'mask-rcnn_swin-base-w7_fpn_8xb2-1x_coco': (BASE, 12, 0.3),
    'mask-rcnn_swin-tiny-w7_fpn_8xb2-ms-3x_coco': (TINY, 36, 0.2),
    'mask-rcnn_swin-base-w7_fpn_8xb2-ms-3x_coco': (BASE, 36, 0.3),
    'mask-rcnn_swin-base-w7_fpn_8xb2-scp-3x_coco': (BASE, 36, 0.3),
    'mask-rcnn_pvt-v2-b2_fpn_8xb2-ms-3x_coco': ([64, 128, 320, 512], 36, 0.2),
    'mask-rcnn_cmt-small_fpn_8xb2-ms-3x_coco': ([64, 128, 256, 512], 36, 0.2),
    'cascade-mask-rcnn_swin-tiny-w7_fpn_8xb2-ms-3x_coco': (TINY, 36, 0.2),
    'cascade-mask-rcnn_swin-base-w7_fpn_8xb2-ms-3x_coco': (BASE, 36, 0.3),
}
SEGMENTATION = {
    'upernet_swin-tiny-w7_8xb2-160k_ade20k-512x512': (TINY, 160000, 0.3),
    'upernet_swin-base-w7_8xb2-160k_ade20k-512x512': (BASE, 160000, 0.3),
    'upernet_vit-base-p16_8xb2-160k_ade20k-512x512': ([768] * 4, 160000, 0.1),
}
RECIPES = {**DETECTION, **SEGMENTATION}
MICRO = {
    'mask-rcnn_swin-micro-w4_fpn_1xb4-8e_photos':
    'greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px',
    'upernet_swin-micro-w4_1xb4-40i_photos-128x128':
    'greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px',
}
# Of the pre-training by FastMIM, whose paper the record names.
FASTMIM = [name for name in RECIPES if '-scp-' in name or 'swin' not in name]
VIT = 'upernet_vit-base-p16_8xb2-160k_ade20k-512x512'


def path_of(name):
    library = 'mmsegmentation' if 'upernet' in name else 'mmdetection'
    return FOLDER / library / f'{name}.py'


@pytest.fixture(params=RECIPES)
def name(request):
    return request.param


@pytest.fixture
def cfg(name):
    return Config.fromfile(path_of(name))


def test_every_recipe_is_known():
    names = {path.stem for path in FOLDER.glob('mm*/*.py')}
    assert names == {*RECIPES, *MICRO}


def test_record(name):
    source = path_of(name).read_text('utf-8')
    record = ast.get_docstring(ast.parse(source))
    fields = dict(re.findall(r'^(\w+): ((?:.|\n    )+)', record, re.M))
    path = path_of(name).relative_to(CHECKOUT).as_posix()
    script = f'tools/benchmarks/{path_of(name).parent.name}/mim_dist_train.sh'
    assert path in fields['Command'] and script in fields['Command']
    assert (CHECKOUT / script).is_file()
    assert ('2103.14030' in fields['Paper']) == (name != VIT)
    assert ('2212.06593' in fields['Paper']) == (name in FASTMIM)
    assert fields['Hardware'].startswith('8 GPUs with 2 images each')
    assert fields['Batch'].startswith('8 x 2 = 16')
    assert fields['Measured'] == 'not measured by this project.'


def test_schedule(name, cfg):
    _, length, _ = RECIPES[name]
    optimizer = cfg.optim_wrapper.optimizer
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert (optimizer.type, optimizer.betas) == ('AdamW', (0.9, 0.999))
    warmup, decay = cfg.param_scheduler
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16
    if name in DETECTION:
        assert (optimizer.lr, optimizer.weight_decay) == (1e-4, 0.05)
        assert cfg.train_cfg.max_epochs == length
        assert warmup.end == 1000
        assert decay.milestones == {12: [8, 11], 36: [27, 33]}[length]
    else:
        assert (optimizer.lr,
                optimizer.weight_decay) == ((3e-4, 0.05) if name == VIT else
                                            (6e-5, 0.01))
        assert cfg.train_cfg.max_iters == length
        assert (warmup.end, decay.begin) == (1500, 1500)
        assert (decay.type, decay.power, decay.eta_min) == ('PolyLR', 1., 0.)


def test_images(name, cfg):
    dataset = cfg.train_dataloader.dataset
    if '-scp-' in name:
        assert [step.type for step in dataset.pipeline
                ] == ['CopyPaste', 'PackDetInputs']
        dataset = dataset.dataset
    pipeline = {step.type: step for step in dataset.pipeline}
    if name in SEGMENTATION:
        assert pipeline['RandomCrop'].crop_size == (512, 512)
        assert cfg.model.data_preprocessor.size == (512, 512)
    elif '-ms-' in name:
        scales = pipeline['RandomChoiceResize'].scales
        assert scales == [(1333, side) for side in range(480, 801, 32)]
        assert 'Resize' not in pipeline
    elif '-scp-' in name:
        # Objects are pasted between images of one size.
        assert pipeline['RandomCrop'].crop_size == (1024, 1024)
        assert pipeline['Pad'].size == (1024, 1024)
    else:
        assert pipeline['Resize'].scale == (1333, 800)
    test = {t.type: t for t in cfg.test_dataloader.dataset.pipeline}
    assert test['Resize'].scale == ((2048, 512) if name in SEGMENTATION else
                                    (1333, 800))


def test_heads_fit_the_backbone(name, cfg):
    widths, _, drop_path = RECIPES[name]
    assert cfg.model.backbone.drop_path_rate == drop_path
    if 'swin' in name:
        assert f'swin-{cfg.model.backbone.arch}-w7' in name
    if name in DETECTION:
        assert cfg.model.neck.in_channels == widths
        cascade = name.startswith('cascade')
        assert (cfg.model.type == 'CascadeRCNN') == cascade
        assert isinstance(cfg.model.roi_head.bbox_head, list) == cascade
    else:
        assert cfg.model.decode_head.in_channels == widths
        auxiliary = cfg.model.auxiliary_head
        assert auxiliary.in_channels == widths[auxiliary.in_index]


def pre_trained(name):
    """A recipe's backbone, and the config that its weights come from."""
    backbone = Config.fromfile(path_of(name)).model.backbone
    checkpoint = Path(backbone.init_cfg.checkpoint)
    library = 'mmseg' if 'upernet' in name else 'mmdet'
    assert checkpoint.name == f'backbone_{library}.pth'
    assert backbone.init_cfg.type == 'Pretrained'
    if name in MICRO:
        assert checkpoint.parent.as_posix() == 'work_dirs/quickstart'
        path = CHECKOUT / 'configs' / 'quickstart' / f'{MICRO[name]}.py'
    else:
        path, = (CHECKOUT / 'configs').rglob(f'{checkpoint.parent.name}.py')
    return backbone, Config.fromfile(path).model.backbone


SWIN = [name for name in (*RECIPES, *MICRO) if 'swin' in name]


@pytest.mark.parametrize('name', SWIN)
def test_backbone_is_the_pre_trained_one(name):
    """Its weights come by init_cfg alone, from a run of this project."""
    backbone, trained = pre_trained(name)
    assert backbone.type == 'mmpretrain.SwinTransformer'
    assert backbone.pad_small_map and backbone.out_indices == (0, 1, 2, 3)
    assert backbone.init_cfg.prefix == 'backbone.'
    for key in ('arch', 'window_size', 'norm_cfg', 'patch_cfg', 'stage_cfgs'):
        if key == 'window_size' and '-scp-' in name:  # exported with another
            assert (backbone[key], trained[key]) == (7, 4)
            continue
        assert backbone[key] == trained[key], key


def test_other_backbones_are_the_pre_trained_ones():
    backbone, trained = pre_trained(VIT)
    assert backbone.type == f'mmpretrain.{trained.type}'
    assert (backbone.arch, backbone.patch_size) == (trained.arch,
                                                    trained.patch_size)
    # Maps between the layers have no norm, nor has the exported file.
    assert (backbone.out_type, backbone.final_norm) == ('featmap', False)
    assert backbone.out_indices[-1] == 11 and len(backbone.out_indices) == 4

    backbone, trained = pre_trained('mask-rcnn_cmt-small_fpn_8xb2-ms-3x_coco')
    assert (backbone.type, backbone.arch) == (trained.type, trained.arch)

    backbone, trained = pre_trained('mask-rcnn_pvt-v2-b2_fpn_8xb2-ms-3x_coco')
    arch = GreenMIMPVTv2.arch_zoo[trained.arch]
    assert backbone.embed_dims == arch['embed_dims'][0]
    assert backbone.num_layers == arch['depths']
    for key in ('num_heads', 'mlp_ratios', 'sr_ratios'):
        assert backbone[key] == arch[key]
    assert backbone.norm_cfg == trained.norm_cfg
    # MMDetection's class loads the file as it is.
    assert not backbone.convert_weights and 'prefix' not in backbone.init_cfg
