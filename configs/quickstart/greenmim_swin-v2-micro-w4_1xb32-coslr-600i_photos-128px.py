# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of a tiny Swin V2 on photographs, in minutes.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the model is made for a CPU.
Command: python tools/train.py configs/quickstart/\
    greenmim_swin-v2-micro-w4_1xb32-coslr-600i_photos-128px.py
Hardware: a GPU, or two CPU cores.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: the loss falls from about 1.1.
Measured: see the end of every run.
"""
_base_ = ['./greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMSwinTransformerV2',
        arch=dict(
            embed_dims=48,
            depths=[1, 1, 2, 1],
            num_heads=[3, 6, 12, 24],
            extra_norm_every_n_blocks=0),
        img_size=128,
        window_size=4,
        drop_path_rate=0.))
