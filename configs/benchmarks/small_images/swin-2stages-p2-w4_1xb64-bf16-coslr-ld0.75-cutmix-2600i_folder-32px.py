# Copyright (c) greenmim authors. All rights reserved.
"""Fine-tuning of the two-stage Swin for small images, with CutMix.

Paper: none; a usual recipe of small pre-trained networks, with rates that
    fall by 0.75 from layer to layer; CutMix is of Yun et al., ICCV 2019,
    https://arxiv.org/abs/1905.04899, on half of the batches.
Command: python tools/train.py
    configs/benchmarks/small_images/swin-2stages-p2-w4_1xb64-bf16-coslr-ld0.75-cutmix-2600i_folder-32px.py
    --data FOLDER --cfg-options model.backbone.init_cfg.checkpoint=BACKBONE
Hardware: a GPU, or a CPU core; bfloat16 is fast where the CPU has AMX.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: docs/does_it_help.md, on CIFAR-10.

Random weights take layer_decay_rate=1 and a learning rate of their own.
"""  # noqa: E501
_base_ = ['../../_base_/classification_runtime.py']

norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='SwinTransformer',
        arch=dict(embed_dims=64, depths=[1, 3], num_heads=[2, 4]),
        img_size=32,
        patch_size=2,
        window_size=4,
        out_indices=(1, ),
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg))),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss', use_soft=True)),
    # That of the pre-training, for what is not loaded.
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='greenmim.PatchXavier'),
        dict(type='Constant', layer='LayerNorm', val=1.),
    ],
    train_cfg=dict(augments=dict(type='CutMix', alpha=1.0), probs=0.5))

data_preprocessor = dict(
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    # As CutMix needs it.
    to_onehot=True)

train_pipeline = [
    dict(type='greenmim.LoadImage'),
    dict(
        type='RandomResizedCrop',
        scale=32,
        crop_ratio_range=(0.4, 1.0),
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
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
    num_workers=0,
    persistent_workers=False,
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
    num_workers=0,
    persistent_workers=False,
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
    type='greenmim.BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05, fused=True),
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.))))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=False, begin=50)
]

train_cfg = dict(by_epoch=False, max_iters=2600)
test_cfg = dict()
log_processor = dict(by_epoch=False)

default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=2600))

auto_scale_lr = dict(base_batch_size=64)
