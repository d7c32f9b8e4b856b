# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Swin-T with MMSelfSup's own data pipeline.

Paper: Huang et al., "Green Hierarchical Vision Transformer for Masked Image
    Modeling", NeurIPS 2022, https://arxiv.org/abs/2205.13515
Command: mim train mmselfsup \
    configs/mmselfsup/greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k-mmselfsup.py \
    --work-dir WORK_DIR --launcher pytorch --gpus 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: no result of the authors is known for this model.
Measured: not measured by this project.

The same run as greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k.py, for a
project that is built on MMSelfSup: its scope, dataset, transforms, data
preprocessor and visualizer. The dataset reads the names of the images from
`ann_file`, one a line, below `data_prefix`; labels are not used. For a folder
without such a list, take `greenmim.ImageFolder` as the dataset here, too.
"""  # noqa: E501
_base_ = [
    '../_base_/models/greenmim_swin-base-w7.py',
    '../_base_/schedules/greenmim_bs2048_adamw_coslr.py',
]
default_scope = 'mmselfsup'

model = dict(
    data_preprocessor=dict(
        type='mmselfsup.SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(arch='tiny'),
    neck=dict(in_channels=768))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        size=224,
        scale=(0.2, 1.0),
        backend='pillow',
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSelfSupInputs', meta_keys=['img_path'])
]

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='greenmim.collate'),
    dataset=dict(
        type='ImageList',
        data_root='data/imagenet/',
        ann_file='meta/train.txt',
        data_prefix=dict(img_path='train/'),
        pipeline=train_pipeline))

# MMSelfSup 1.0 cannot build a loop by its type.
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=200)
warm_up = dict(of=200)

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='greenmim.SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    run_folder=dict(type='greenmim.RunFolderHook'),
    settings=dict(type='greenmim.LinkedSettingsHook'))

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='SelfSupVisualizer', vis_backends=vis_backends, name='visualizer')

log_level = 'INFO'
load_from = None
resume = False

randomness = dict(seed=0, diff_rank_seed=True)
