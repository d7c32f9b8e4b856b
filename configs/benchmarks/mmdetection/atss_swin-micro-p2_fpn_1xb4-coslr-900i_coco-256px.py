# Copyright (c) greenmim authors. All rights reserved.
"""A detector for images of 256 px on the quick start's Swin, in minutes.

Paper: Zhang et al., CVPR 2020, https://arxiv.org/abs/1912.02424, with three
    levels of a small feature pyramid; the sizes are made for a CPU.
Command: mim train mmdet
    configs/benchmarks/mmdetection/atss_swin-micro-p2_fpn_1xb4-coslr-900i_coco-256px.py
    --gpus 0; tools/benchmarks/compare_detectors.py trains it on any folder.
Hardware: a GPU, or one CPU core.
Batch: 1 x 4; learning rate 1e-3, not scaled.
Expected: depends on the images.
Measured: not measured.
"""
_base_ = './_base_/mmdet_runtime.py'

norm_cfg = dict(type='LN', eps=1e-6)
channels = 64

model = dict(
    type='ATSS',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='mmpretrain.SwinTransformer',
        arch=dict(embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
        img_size=112,
        patch_size=2,
        window_size=7,
        pad_small_map=True,
        out_indices=(0, 1, 2, 3),  # strides 2 to 16
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg)),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/greenmim_swin-micro-p2_1xb16-coslr-1800i_'
            'folder-112px/backbone_mmdet.pth',
            prefix='backbone.')),
    neck=dict(
        type='FPN',
        in_channels=[24, 48, 96, 192],
        out_channels=channels,
        start_level=2,
        add_extra_convs='on_output',
        num_outs=3),
    bbox_head=dict(
        type='ATSSHead',
        num_classes=80,
        in_channels=channels,
        stacked_convs=2,
        feat_channels=channels,
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=4,
            scales_per_octave=1,
            strides=[8, 16, 32]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0., 0., 0., 0.],
            target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(
            type='FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(type='ATSSAssigner', topk=9),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100))

# Seen from above or not, few images need all the variety that there is.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomResize',
        scale=(256, 256),
        ratio_range=(0.75, 1.5),
        keep_ratio=True),
    dict(type='RandomCrop', crop_size=(256, 256), allow_negative_crop=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root='data/coco/',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=False, min_size=1),
        pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root='data/coco/',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline))
val_dataloader = test_dataloader
test_evaluator = dict(
    type='CocoMetric',
    ann_file='data/coco/annotations/instances_val2017.json',
    metric='bbox')
val_evaluator = test_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.))),
    clip_grad=dict(max_norm=10.))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=False, begin=50)
]
train_cfg = dict(by_epoch=False, max_iters=900, val_interval=900)
warm_up = dict(end=50, of=900)
val_cfg = dict()
test_cfg = dict()
log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=900))

auto_scale_lr = dict(base_batch_size=4)
