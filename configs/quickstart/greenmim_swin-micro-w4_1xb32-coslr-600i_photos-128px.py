# Copyright (c) greenmim authors. All rights reserved.
"""GreenMIM pre-training of a tiny Swin on photographs, in minutes.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the model is made for a CPU.
Command: bash tools/quickstart.sh
Hardware: a GPU, or two CPU cores.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: the loss falls from about 1.1 to 0.7 in the first minute and slowly
    from there; masked units are reconstructed as tints of their surroundings.
    Sharper pictures take a longer run: train_cfg.max_iters=5000.
Measured: see the end of every run.
"""
_base_ = [
    '../_base_/schedules/pretrain_minutes_adamw_coslr.py',
    '../_base_/default_runtime.py'
]

norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    type='greenmim.GreenMIM',
    mask_ratio=0.75,
    mask_scope='batch',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch=dict(
            embed_dims=48, depths=[1, 1, 2, 1], num_heads=[3, 6, 12, 24]),
        img_size=128,
        window_size=4,
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg))),
    neck=dict(
        type='greenmim.GreenMIMNeck',
        in_channels=384,
        embed_dims=192,
        depth=1,
        num_heads=6,
        norm_cfg=norm_cfg),
    head=dict(type='greenmim.GreenMIMHead', norm_pix=True))

data_preprocessor = dict(
    type='greenmim.ChannelDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)

train_pipeline = [
    dict(
        type='RandomResizedCrop',
        scale=128,
        crop_ratio_range=(0.5, 1.0),
        backend='pillow',
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs')
]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    # An iteration-based loop starts its workers before PreemptionHook could
    # protect them from the signals of a scheduler.
    worker_init_fn=dict(type='greenmim.leave_signals_to_parent'),
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='greenmim.SeededInfiniteSampler', shuffle=True),
    collate_fn=dict(type='greenmim.collate'),
    dataset=dict(
        type='greenmim.SamplePhotographs',
        num_views=1024,
        pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=1e-3))

param_scheduler = [
    dict(_base_.param_scheduler[0], end=30),
    dict(_base_.param_scheduler[1], begin=30)
]

train_cfg = dict(max_iters=600)
warm_up = dict(end=30, of=600)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=200, max_keep_ckpts=2))

auto_scale_lr = dict(base_batch_size=32)
