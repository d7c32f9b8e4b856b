# Copyright (c) greenmim authors. All rights reserved.
r"""Mask R-CNN on Swin-T, window 7: 36 epochs of COCO.

Paper: the schedule and optimiser of Liu et al., "Swin Transformer", ICCV
    2021, https://arxiv.org/abs/2103.14030; the heads are MMDetection's.
Command: bash tools/benchmarks/mmdetection/mim_dist_train.sh \
    configs/benchmarks/mmdetection/mask-rcnn_swin-tiny-w7_fpn_8xb2-ms-3x_coco.py \
    BACKBONE 8
Hardware: 8 GPUs with 2 images each; time and memory not measured.
Batch: 8 x 2 = 16; learning rate 1e-4, not scaled.
Expected: no number for weights of this project yet.
Measured: not measured by this project.
"""  # noqa: E501
_base_ = [
    '_base_/mask-rcnn_swin-tiny-w7_fpn.py',
    '_base_/coco-instance-ms_bs16.py',
    '_base_/mmdet-adamw_bs16_3x.py',
    '_base_/mmdet_runtime.py',
]
