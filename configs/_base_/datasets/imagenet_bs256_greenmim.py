# Copyright (c) greenmim authors. All rights reserved.
# ImageNet-1k without its labels, 256 images of 224 px a GPU. Another
# `data_root` is all that it takes to train on any other folder of images.
data_preprocessor = dict(
    type='greenmim.ChannelDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)

train_pipeline = [
    dict(type='greenmim.LoadImage', decoder='opencv'),
    dict(
        type='greenmim.RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        backend='pillow',
        interpolation='bicubic'),
    dict(type='greenmim.RandomFlip', prob=0.5),
    dict(type='PackInputs')
]

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='greenmim.SeededSampler', shuffle=True),
    collate_fn=dict(type='greenmim.collate'),
    dataset=dict(
        type='greenmim.ImageFolder',
        data_root='data/imagenet/train',
        index_dir='~/.cache/greenmim',
        held_out='auto',
        pipeline=train_pipeline))
