# Copyright (c) greenmim authors. All rights reserved.
"""GreenMIM pre-training of a three-stage Swin on small images.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the model is made for 32-px images: 16
    mask units of 8 px, the final stride of patches of 2 px in three stages.
Command: python tools/train.py
    configs/benchmarks/small_images/greenmim_swin-micro-p2-w4_1xb64-coslr-1200i_folder-32px.py
    --cfg-options train_dataloader.dataset.data_root=IMAGE_FOLDER
Hardware: a GPU, or a CPU core.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: docs/does_it_help.md, on CIFAR-10.
"""  # noqa: E501
_base_ = [
    '../../_base_/schedules/pretrain_minutes_adamw_coslr.py',
    '../../_base_/default_runtime.py'
]

norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    type='greenmim.GreenMIM',
    mask_ratio=0.6,
    mask_scope='batch',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
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
    neck=dict(
        type='greenmim.GreenMIMNeck',
        in_channels=128,
        embed_dims=128,
        depth=1,
        num_heads=4,
        out_channels=8 * 8 * 3,
        norm_cfg=norm_cfg),
    head=dict(type='greenmim.GreenMIMHead', norm_pix=True, unit_size=8))

data_preprocessor = dict(
    type='greenmim.ChannelDataPreprocessor',
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
        type='greenmim.ImageFolder',
        data_root='data/images/train',
        index_dir='~/.cache/greenmim',
        pipeline=train_pipeline))

train_cfg = dict(max_iters=1200)
warm_up = dict(of=1200)
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=1200))

auto_scale_lr = dict(base_batch_size=64)
