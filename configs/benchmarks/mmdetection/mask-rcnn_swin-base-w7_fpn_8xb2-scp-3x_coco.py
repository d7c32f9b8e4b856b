# Copyright (c) greenmim authors. All rights reserved.
r"""Mask R-CNN on FastMIM's Swin-B: 36 epochs of COCO with simple copy-paste.

Paper: Guo et al., "FastMIM: Expediting Masked Image Modeling Pre-training for
    Vision", https://arxiv.org/abs/2212.06593; the schedule and optimiser of
    Liu et al., https://arxiv.org/abs/2103.14030; the augmentation of Ghiasi
    et al., https://arxiv.org/abs/2012.07177; the heads are MMDetection's.
Command: bash tools/benchmarks/mmdetection/mim_dist_train.sh \
    configs/benchmarks/mmdetection/mask-rcnn_swin-base-w7_fpn_8xb2-scp-3x_coco.py \
    BACKBONE 8
Hardware: 8 GPUs with 2 images each; time and memory not measured.
Batch: 8 x 2 = 16; learning rate 1e-4, not scaled.
Expected: 52.0 box AP and 46.0 mask AP, the numbers in the authors' README;
    their size of images and jitter are not known to this project.
Measured: not measured by this project.

The windows of the pre-training, 4, are enlarged by the export:
`export_backbone.py CHECKPOINT --to mmdet --window-size 7`. LayerNorms have the
eps of FastMIM.
"""  # noqa: E501
_base_ = [
    '_base_/mask-rcnn_swin-tiny-w7_fpn.py',
    '_base_/coco-instance-scp_bs16.py',
    '_base_/mmdet-adamw_bs16_3x.py',
    '_base_/mmdet_runtime.py',
]

norm_cfg = dict(type='LN', eps=1e-5)

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.3,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg)),
        init_cfg=dict(
            checkpoint='work_dirs/fastmim_swin-base-w4_8xb256-amp-coslr-400e_'
            'in1k-128px/backbone_mmdet.pth')),
    neck=dict(in_channels=[128, 256, 512, 1024]))
