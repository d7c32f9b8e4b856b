# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of a tiny ConvNeXt V2 on photographs, in minutes.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the model is made for a CPU.
Command: python tools/train.py \
    configs/quickstart/greenmim_convnext-micro_1xb32-coslr-600i_photos-128px.py
Hardware: a GPU, or two CPU cores.
Batch: 1 x 32; learning rate 1e-3, not scaled.
Expected: the loss falls from about 1.1 to 0.75 in the first 50 iterations.
Measured: see the end of every run.
"""
_base_ = ['./greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMConvNeXt',
        arch=dict(depths=[1, 1, 2, 1], channels=[48, 96, 192, 384]),
        use_grn=True,
        layer_scale_init_value=0.,
        drop_path_rate=0.))

optim_wrapper = dict(paramwise_cfg=dict(flat_decay_mult=0.))
