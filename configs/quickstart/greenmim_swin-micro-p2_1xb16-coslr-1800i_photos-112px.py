# Copyright (c) greenmim authors. All rights reserved.
"""A small Swin that visibly learns to predict masked units, in minutes.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the model is made for a CPU.
Command: bash tools/quickstart.sh
Hardware: a GPU, or two CPU cores.
Batch: 1 x 16; learning rate 2e-3, not scaled.
Expected: on a folder of 500 photographs or more, predictions of held-out ones
    that err less than a smooth interpolation of the visible pixels.
Measured: squared error of held-out images 0.596 on the photographs (0.635 by
    interpolation, 5.1 minutes), 0.518 on 1,000 images of ImageNet (0.650, 5.7
    minutes), on two cores of an Intel Xeon with PyTorch 2.11, seed 0.
"""
_base_ = [
    '../_base_/schedules/pretrain_minutes_adamw_coslr.py',
    '../_base_/default_runtime.py'
]

norm_cfg = dict(type='LN', eps=1e-6)

# Patches of 2 px: 49 units of 16 px, of which pictures can show continued
# edges, in images that are small enough for a CPU.
model = dict(
    type='greenmim.GreenMIM',
    mask_ratio=0.6,
    mask_scope='image',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch=dict(embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
        img_size=112,
        patch_size=2,
        window_size=7,
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg))),
    neck=dict(
        type='greenmim.ConvNeck',
        in_channels=192,
        embed_dims=128,
        depth=2,
        kernel_size=3,
        out_channels=16 * 16 * 3),
    head=dict(type='greenmim.GreenMIMHead', norm_pix=False, unit_size=16))

data_preprocessor = dict(
    type='greenmim.ChannelDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)

train_pipeline = [
    dict(
        type='RandomResizedCrop',
        scale=112,
        crop_ratio_range=(0.6, 1.0),
        backend='pillow',
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs')
]

train_dataloader = dict(
    batch_size=16,
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
        held_out=2,
        pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(weight_decay=0.15))

train_cfg = dict(max_iters=1800)
warm_up = dict(of=1800)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=600, max_keep_ckpts=2))

auto_scale_lr = dict(base_batch_size=16)
