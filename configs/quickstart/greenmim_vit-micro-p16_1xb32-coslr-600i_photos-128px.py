# Copyright (c) greenmim authors. All rights reserved.
r"""MAE-style pre-training of a tiny ViT on photographs, in minutes.

Paper: the method of He et al., CVPR 2022, https://arxiv.org/abs/2111.06377;
    the model is made for a CPU.
Command: python tools/train.py \
    configs/quickstart/greenmim_vit-micro-p16_1xb32-coslr-600i_photos-128px.py
Hardware: a GPU, or two CPU cores.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: the loss falls from about 1.1.
Measured: see the end of every run.
"""
_base_ = ['./greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py']

model = dict(
    mask_scope='image',
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMVisionTransformer',
        arch=dict(
            embed_dims=192,
            num_layers=4,
            num_heads=6,
            feedforward_channels=768),
        img_size=128,
        patch_size=16,
        fixed_positions=True),
    neck=dict(in_channels=192, depth=2, out_channels=16 * 16 * 3),
    head=dict(unit_size=16))
