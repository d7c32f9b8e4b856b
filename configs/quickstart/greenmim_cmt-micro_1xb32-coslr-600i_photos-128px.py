# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of a tiny CMT on photographs, in minutes.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the model is made for a CPU.
Command: python tools/train.py \
    configs/quickstart/greenmim_cmt-micro_1xb32-coslr-600i_photos-128px.py
Hardware: a GPU, or two CPU cores.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: the loss falls from about 1.1 to 0.7 within 40 iterations.
Measured: see the end of every run.
"""
_base_ = ['./greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMCMT',
        img_size=128,
        arch=dict(
            stem_channels=16,
            embed_dims=[48, 96, 192, 384],
            depths=[1, 1, 2, 1],
            num_heads=[1, 2, 4, 8],
            mlp_ratios=[4, 4, 4, 4],
            sr_ratios=[8, 4, 2, 1])))
