# Copyright (c) greenmim authors. All rights reserved.
r"""UPerNet on Swin-B, window 7: 160,000 iterations of ADE20K at 512 px.

Paper: the schedule and optimiser of Liu et al., "Swin Transformer", ICCV
    2021, https://arxiv.org/abs/2103.14030; the heads are MMSegmentation's.
Command: bash tools/benchmarks/mmsegmentation/mim_dist_train.sh \
    configs/benchmarks/mmsegmentation/upernet_swin-base-w7_8xb2-160k_ade20k-512x512.py \
    BACKBONE 8
Hardware: 8 GPUs with 2 images each; time and memory not measured.
Batch: 8 x 2 = 16; learning rate 6e-5, not scaled.
Expected: no number for weights of this project yet.
Measured: not measured by this project.
"""  # noqa: E501
_base_ = [
    '_base_/upernet_swin-tiny-w7.py',
    '_base_/ade20k_bs16_512x512.py',
    '_base_/mmseg-adamw_bs16_160k.py',
    '_base_/mmseg_runtime.py',
]

model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(
            checkpoint='work_dirs/greenmim_swin-base-w7_8xb256-amp-coslr-'
            '800e_in1k/backbone_mmseg.pth')),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
