# Copyright (c) greenmim authors. All rights reserved.
"""FastMIM pre-training of a tiny Swin on photographs, in minutes.

Paper: the method of Guo et al., https://arxiv.org/abs/2212.06593; the model,
    images and schedule of its base.
Command: python tools/train.py
    configs/quickstart/fastmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py
Hardware: a GPU, or two CPU cores.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: the loss falls from 0.3 (the first ten iterations) to 0.06 within 60
    iterations, and slowly from there.
Measured: not measured by this project.
"""
_base_ = ['greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py']

model = dict(
    type='greenmim.MaskTokenMIM',
    mask_token='pixel',
    mask_scope='image',
    neck=dict(out_channels=432, pos_embed=False, mask_token=False),
    head=dict(
        _delete_=True,
        type='greenmim.GreenMIMHead',
        target=dict(type='greenmim.HOGTarget')))
