# Copyright (c) greenmim authors. All rights reserved.
# Images of 32 px in folders `train` and `test`, each with a folder a class.

data_preprocessor = dict(
    num_classes=10,
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
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PackInputs')
]
test_pipeline = [
    dict(type='greenmim.LoadImage'),
    dict(type='ResizeEdge', scale=32, interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs')
]

# Small images are decoded faster than they are handed over by a worker.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='greenmim.collate'),
    dataset=dict(
        type='greenmim.LabelledFolder',
        data_root='data/images',
        data_prefix='train',
        pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='greenmim.collate'),
    dataset=dict(
        type='greenmim.LabelledFolder',
        data_root='data/images',
        data_prefix='test',
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = dict(type='Accuracy')

auto_scale_lr = dict(base_batch_size=64)
