# Copyright (c) greenmim authors. All rights reserved.
r"""Mask R-CNN on FastMIM's CMT-S: 36 epochs of COCO.

Paper: Guo et al., "FastMIM: Expediting Masked Image Modeling Pre-training for
    Vision", https://arxiv.org/abs/2212.06593; the schedule and optimiser of
    Liu et al., https://arxiv.org/abs/2103.14030; the heads are MMDetection's.
Command: bash tools/benchmarks/mmdetection/mim_dist_train.sh \
    configs/benchmarks/mmdetection/mask-rcnn_cmt-small_fpn_8xb2-ms-3x_coco.py \
    BACKBONE 8
Hardware: 8 GPUs with 2 images each; time and memory not measured.
Batch: 8 x 2 = 16; learning rate 1e-4, not scaled.
Expected: the authors report no number for this backbone.
Measured: not measured by this project.

Schedule, images and drop path are those of Swin-T: the authors' are not known
to this project. Position biases are kept for images of 224 px, as in
fine-tuning, and interpolated to the maps of each batch. Batch norms share
their statistics, since two images are few for them.
"""  # noqa: E501
_base_ = [
    '_base_/mask-rcnn_swin-tiny-w7_fpn.py',
    '_base_/coco-instance-ms_bs16.py',
    '_base_/mmdet-adamw_bs16_3x.py',
    '_base_/mmdet_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMCMT',
        arch='small',
        img_size=224,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        bn_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/fastmim_cmt-small_8xb256-amp-coslr-400e_'
            'in1k-128px/backbone_mmdet.pth',
            prefix='backbone.')),
    neck=dict(in_channels=[64, 128, 256, 512]))

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(position_biases=dict(decay_mult=0.))))
