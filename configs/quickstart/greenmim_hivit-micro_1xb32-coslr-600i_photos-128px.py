# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of a tiny HiViT on photographs, in minutes.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the model is made for a CPU.
Command: python tools/train.py \
    configs/quickstart/greenmim_hivit-micro_1xb32-coslr-600i_photos-128px.py
Hardware: a GPU, or two CPU cores.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: the loss falls from about 1.2 to 0.65 in the first 50 iterations.
Measured: see the end of every run.
"""
_base_ = ['./greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMHiViT',
        arch=dict(embed_dims=192, depths=[1, 1, 7], num_heads=6),
        img_size=128,
        norm_cfg=dict(type='LN', eps=1e-6)),
    neck=dict(in_channels=192, out_channels=16 * 16 * 3),
    head=dict(unit_size=16))

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(pos_embed=dict(decay_mult=0.))))
