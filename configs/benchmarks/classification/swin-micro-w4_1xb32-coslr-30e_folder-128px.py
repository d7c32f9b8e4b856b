# Copyright (c) greenmim authors. All rights reserved.
"""Fine-tuning of the quick start's Swin on a small labelled folder.

Paper: none; it shows that weights, data and tools fit together.
Command: python tools/train.py \\
    configs/benchmarks/classification/swin-micro-w4_1xb32-coslr-30e_folder-128px.py \\
    --data FOLDER
Hardware: a GPU, or one CPU core.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: depends on the images.
Measured: see the end of every run.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-base-w7_classifier.py',
    '../../_base_/datasets/imagenet_bs96_classes_224px.py',
    '../../_base_/schedules/finetune_bs768_adamw_coslr_100e.py',
    '../../_base_/classification_runtime.py',
]

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=48,
            depths=[1, 1, 2, 1],
            num_heads=[3, 6, 12, 24]),
        img_size=128,
        window_size=4,
        drop_path_rate=0.,
        init_cfg=dict(
            checkpoint='work_dirs/quickstart/backbone_mmpretrain.pth')),
    head=dict(in_channels=384),
    train_cfg=None)

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 128
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 146
test_pipeline[2].crop_size = 128

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    drop_last=False,
    dataset=dict(data_root='data/labelled', pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(data_root='data/labelled', pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=3,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=3,
        convert_to_iter_based=True)
]

# In a shorter run, the warm-up takes the same share.
warm_up = dict(end=3, of=30)

train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=32)
