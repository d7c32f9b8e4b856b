# Copyright (c) greenmim authors. All rights reserved.
"""Mask R-CNN on the quick start's Swin and a tiny set, on a CPU in minutes.

Paper: none; it shows that weights, data and tools fit together.
Command: mim train mmdet configs/benchmarks/mmdetection/mask-rcnn_swin-micro-w4_fpn_1xb4-8e_photos.py --gpus 0
Hardware: a GPU, or one CPU core.
Batch: 1 x 4; learning rate 1e-3, not scaled.
Expected: the loss falls from about 6 to less than 2.
Measured: see the end of every run.
"""  # noqa: E501
_base_ = './mask-rcnn_swin-tiny-w7_fpn_8xb2-1x_coco.py'

channels = 64
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=48,
            depths=[1, 1, 2, 1],
            num_heads=[3, 6, 12, 24]),
        window_size=4,
        drop_path_rate=0.,
        init_cfg=dict(checkpoint='work_dirs/quickstart/backbone_mmdet.pth')),
    neck=dict(in_channels=[48, 96, 192, 384], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(in_channels=channels, conv_out_channels=channels)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=256, max_per_img=64),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(
        rpn=dict(nms_pre=256, max_per_img=64),
        # Scores are low after so few iterations.
        rcnn=dict(score_thr=0.001, max_per_img=20)))

# data/coco is made by tools/dataset_converters/photographs_to_coco_ade.py.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1., keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]
train_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5)
]
train_cfg = dict(max_epochs=8, val_interval=8)
warm_up = dict(end=5, of=48)
default_hooks = dict(logger=dict(interval=1))
auto_scale_lr = dict(base_batch_size=4)
