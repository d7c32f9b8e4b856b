# Copyright (c) greenmim authors. All rights reserved.
"""Fine-tuning of the two-stage Swin beside masked image modelling.

Paper: Das et al., WACV 2024, https://arxiv.org/abs/2310.20704, for the sum of
    the losses, 0.1 and 0.9; the model is made for 32-px images.
Command: python tools/train.py
    configs/benchmarks/small_images/joint_swin-2stages-p2-w4_1xb64-bf16-coslr-800i_folder-32px.py
    --data FOLDER
Hardware: a GPU, or a CPU core; bfloat16 is fast where the CPU has AMX.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: not measured by this project.

It starts from random weights; model.backbone.init_cfg loads others.
"""  # noqa: E501
_base_ = ['../../_base_/classification_runtime.py']

norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    type='greenmim.JointMIM',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
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
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
    mim=dict(
        type='greenmim.GreenMIM',
        mask_ratio=0.75,
        mask_scope='image',
        neck=dict(
            type='greenmim.ConvNeck',
            in_channels=128,
            embed_dims=64,
            depth=1,
            kernel_size=3,
            out_channels=4 * 4 * 3,
            norm_cfg=norm_cfg),
        head=dict(type='greenmim.GreenMIMHead', unit_size=4, norm_pix=False)),
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
    sampler=dict(type='greenmim.SeededInfiniteSampler', shuffle=True),
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
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.))))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=False, begin=50)
]

train_cfg = dict(by_epoch=False, max_iters=800)
test_cfg = dict()
log_processor = dict(by_epoch=False)

default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=800))

auto_scale_lr = dict(base_batch_size=64)

# Samples and steps draw from seeds of their own, as in a pre-training.
randomness = dict(diff_rank_seed=False)
