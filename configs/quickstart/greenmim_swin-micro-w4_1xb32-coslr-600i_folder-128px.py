# Copyright (c) greenmim authors. All rights reserved.
"""The quick start on a folder of images; the record is that of its base.

Command: bash tools/quickstart.sh IMAGE_FOLDER
"""
_base_ = ['greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py']

train_pipeline = [
    # JPEG photographs of a camera are decoded at the smallest scale that
    # leaves the smallest crop its pixels.
    dict(type='greenmim.LoadImage', min_side=184),
    *_base_.train_pipeline
]

train_dataloader = dict(
    num_workers=2,
    dataset=dict(
        _delete_=True,
        type='greenmim.ImageFolder',
        data_root='data/images',
        index_dir='~/.cache/greenmim',
        pipeline=train_pipeline))
