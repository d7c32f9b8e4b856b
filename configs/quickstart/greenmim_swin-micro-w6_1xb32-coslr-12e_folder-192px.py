# Copyright (c) greenmim authors. All rights reserved.
_base_ = ['greenmim_swin-micro-w6_1xb32-coslr-12e_photos-192px.py']

train_pipeline = [
    # JPEG photographs of a camera are decoded at the smallest scale that
    # leaves the smallest crop its pixels.
    dict(type='greenmim.LoadImage', min_side=272),
    *_base_.train_pipeline
]

train_dataloader = dict(
    num_workers=2,
    dataset=dict(
        _delete_=True,
        type='greenmim.ImageFolder',
        data_root='data/images',
        pipeline=train_pipeline))
