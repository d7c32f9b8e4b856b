# Copyright (c) greenmim authors. All rights reserved.
# A GreenMIM model that trains two epochs on a CPU in a second. The mask and
# the order of the images are fixed, so that runs can be compared.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['micro_parts'])

model = dict(
    type='greenmim.GreenMIM',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
        img_size=64,
        window_size=4,
        drop_path_rate=0.),
    neck=dict(
        type='greenmim.GreenMIMNeck',
        in_channels=128,
        embed_dims=32,
        num_heads=4),
    head=dict(type='greenmim.GreenMIMHead'))

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='greenmim.ImageFolder',
        data_root='images',
        pipeline=[
            dict(type='greenmim.LoadImage'),
            dict(
                type='greenmim.FixedMask', mask=[[True, False], [True, True]]),
            dict(type='PackInputs', algorithm_keys=['mask']),
        ]))

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.5, momentum=0.9))
param_scheduler = dict(type='LinearLR', start_factor=0.5, end=3)
train_cfg = dict(by_epoch=True, max_epochs=2)
auto_scale_lr = dict(base_batch_size=4)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='greenmim.SafeCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [dict(type='greenmim.RecordLosses')]
env_cfg = dict(
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0, diff_rank_seed=True)
