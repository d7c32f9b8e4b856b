# Copyright (c) greenmim authors. All rights reserved.
"""UPerNet on the quick start's Swin and a tiny set, on a CPU in a minute.

Paper: none; it shows that weights, data and tools fit together.
Command: mim train mmsegmentation configs/benchmarks/mmsegmentation/upernet_swin-micro-w4_1xb4-40i_photos-128x128.py --gpus 0
Hardware: a GPU, or one CPU core.
Batch: 1 x 4; learning rate 2e-3, not scaled.
Expected: the loss falls from about 7 to 4.
Measured: see the end of every run.
"""  # noqa: E501
_base_ = './upernet_swin-tiny-w7_8xb2-160k_ade20k-512x512.py'

crop_size = (128, 128)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=48,
            depths=[1, 1, 2, 1],
            num_heads=[3, 6, 12, 24]),
        window_size=4,
        drop_path_rate=0.,
        init_cfg=dict(checkpoint='work_dirs/quickstart/backbone_mmseg.pth')),
    decode_head=dict(in_channels=[48, 96, 192, 384], channels=64),
    auxiliary_head=dict(in_channels=192, channels=64))

# data/ade is made by tools/dataset_converters/photographs_to_coco_ade.py.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type='PolyLR', by_epoch=False, begin=5, power=1.0, eta_min=0.)
]
train_cfg = dict(max_iters=40, val_interval=40)
warm_up = dict(end=5, of=40)
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=40))
auto_scale_lr = dict(base_batch_size=4)
