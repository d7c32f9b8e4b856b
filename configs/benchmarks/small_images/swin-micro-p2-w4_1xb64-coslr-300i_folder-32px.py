# Copyright (c) greenmim authors. All rights reserved.
"""Fine-tuning of the three-stage Swin for small images.

Paper: none; the usual recipe of Swin without what only long runs need.
Command: python tools/train.py
    configs/benchmarks/small_images/swin-micro-p2-w4_1xb64-coslr-300i_folder-32px.py
    --data FOLDER --cfg-options model.backbone.init_cfg.checkpoint=BACKBONE
Hardware: a GPU, or a CPU core.
Batch: 1 x 64; learning rate 1e-3, not scaled.
Expected: depends on the images.
Measured: docs/does_it_help.md, on CIFAR-10.
"""  # noqa: E501
_base_ = ['../../_base_/classification_runtime.py']

norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='SwinTransformer',
        arch=dict(embed_dims=32, depths=[1, 1, 2], num_heads=[2, 4, 8]),
        img_size=32,
        patch_size=2,
        window_size=4,
        out_indices=(2, ),
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg))),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
    # That of the pre-training, for what is not loaded.
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='greenmim.PatchXavier'),
        dict(type='Constant', layer='LayerNorm', val=1.),
    ])

data_preprocessor = dict(
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)

train_pipeline = [
    dict(type='greenmim.LoadImage'),
    dict(
        type='RandomResizedCrop',
        scale=32,
        crop_ratio_range=(0.4, 1.0),
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs')
]
test_pipeline = [
    dict(type='greenmim.LoadImage'),
    dict(type='ResizeEdge', scale=32, interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs')
]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    # An iteration-based loop starts its workers before PreemptionHook could
    # protect them from the signals of a scheduler.
    worker_init_fn=dict(type='greenmim.leave_signals_to_parent'),
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='greenmim.collate'),
    dataset=dict(
        type='greenmim.LabelledFolder',
        data_root='data/images',
        data_prefix='train',
        pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=256,
    num_workers=1,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='greenmim.collate'),
    dataset=dict(
        type='greenmim.LabelledFolder',
        data_root='data/images',
        data_prefix='test',
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = dict(type='Accuracy')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.))))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=False, begin=50)
]

train_cfg = dict(by_epoch=False, max_iters=300)
test_cfg = dict()
log_processor = dict(by_epoch=False)

default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=300))

auto_scale_lr = dict(base_batch_size=64)
