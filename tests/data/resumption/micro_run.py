# Copyright (c) greenmim authors. All rights reserved.
# The run that wrote iter_4.pth, see README.md.
default_scope = 'mmpretrain'

model = dict(
    type='greenmim.GreenMIM',
    mask_ratio=0.5,
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch=dict(embed_dims=4, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]),
        img_size=64,
        window_size=4,
        drop_path_rate=0.1),
    neck=dict(
        type='greenmim.GreenMIMNeck',
        in_channels=32,
        embed_dims=8,
        num_heads=2),
    head=dict(type='greenmim.GreenMIMHead'))

train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(type='greenmim.SeededSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='greenmim.ImageFolder',
        data_root='images',
        pipeline=[
            dict(type='greenmim.LoadImage'),
            dict(type='RandomResizedCrop', scale=64),
            dict(type='PackInputs'),
        ]))

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=6),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=6, end=8),
]
# Three iterations an epoch: the checkpoint is in the middle of the second.
train_cfg = dict(type='greenmim.ResumableEpochLoop', max_epochs=3)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='greenmim.SafeCheckpointHook', by_epoch=False, interval=4),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [
    dict(type='greenmim.UnreadableImageHook'),
    dict(type='greenmim.PlanAheadHook'),
    dict(type='greenmim.SeedStepHook'),
    dict(type='greenmim.NonFiniteHook'),
    dict(type='greenmim.PreemptionHook'),
    dict(type='greenmim.LearningHook', interval=2, num_images=4),
]
env_cfg = dict(
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0)
