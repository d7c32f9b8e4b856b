# Copyright (c) greenmim authors. All rights reserved.
"""The quick start on a folder of images; the record is that of its base.

Command: bash tools/quickstart.sh IMAGE_FOLDER
"""
_base_ = ['greenmim_swin-micro-p2_1xb16-coslr-1800i_photos-112px.py']

train_pipeline = [
    # JPEG photographs of a camera are decoded at the smallest scale that
    # leaves the smallest crop its pixels.
    dict(type='greenmim.LoadImage', min_side=145),
    *_base_.train_pipeline
]

train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='greenmim.ImageFolder',
        data_root='data/images',
        index_dir='~/.cache/greenmim',
        held_out='auto',
        pipeline=train_pipeline))
