# Copyright (c) greenmim authors. All rights reserved.
# A classifier on the backbone of the micro config, to test and not to train.
default_scope = 'mmpretrain'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
        img_size=64,
        window_size=2),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=128))
data_preprocessor = dict(
    num_classes=2, mean=[127.5] * 3, std=[64.] * 3, to_rgb=True)

# `data_root` holds a folder for each of the two classes.
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root='images',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='PackInputs'),
        ]))
test_cfg = dict()
test_evaluator = dict(type='Accuracy')
visualizer = dict(type='UniversalVisualizer')
