# Copyright (c) greenmim authors. All rights reserved.
# The same with large-scale jitter and simple copy-paste, on squares of 1024
# pixels: objects of one image are pasted into another of the same size.
_base_ = './coco-instance_bs16.py'

image_size = (1024, 1024)

load_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomResize',
        scale=image_size,
        ratio_range=(0.1, 2.0),
        keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_type='absolute',
        crop_size=image_size,
        recompute_bbox=True,
        allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=image_size)
]
train_pipeline = [
    dict(type='CopyPaste', max_num_pasted=100),
    dict(type='PackDetInputs')
]

dataset = _base_.train_dataloader.dataset
dataset.pipeline = load_pipeline
train_dataloader = dict(
    # All images have one shape.
    batch_sampler=None,
    dataset=dict(
        _delete_=True,
        type='MultiImageMixDataset',
        dataset=dataset,
        pipeline=train_pipeline))
