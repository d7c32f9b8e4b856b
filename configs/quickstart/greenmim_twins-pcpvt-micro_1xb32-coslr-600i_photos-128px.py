# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of a tiny Twins-PCPVT on photographs, in minutes.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the model is made for a CPU.
Command: python tools/train.py \
    configs/quickstart/greenmim_twins-pcpvt-micro_1xb32-coslr-600i_photos-128px.py
Hardware: a GPU, or two CPU cores.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: the loss falls from about 1.1.
Measured: see the end of every run.
"""
_base_ = ['./greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMPCPVT',
        arch=dict(
            embed_dims=[48, 96, 192, 384],
            depths=[1, 2, 2, 2],
            num_heads=[3, 6, 12, 24],
            patch_sizes=[4, 2, 2, 2],
            strides=[4, 2, 2, 2],
            mlp_ratios=[4, 4, 4, 4],
            sr_ratios=[8, 4, 2, 1]),
        qkv_bias=True,
        norm_after_stage=[False, False, False, True]))
