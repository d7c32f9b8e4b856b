# Copyright (c) greenmim authors. All rights reserved.
r"""Mask R-CNN on FastMIM's PVTv2-b2: 36 epochs of COCO.

Paper: Guo et al., "FastMIM: Expediting Masked Image Modeling Pre-training for
    Vision", https://arxiv.org/abs/2212.06593; the schedule and optimiser of
    Liu et al., https://arxiv.org/abs/2103.14030; the heads are MMDetection's.
Command: bash tools/benchmarks/mmdetection/mim_dist_train.sh \
    configs/benchmarks/mmdetection/mask-rcnn_pvt-v2-b2_fpn_8xb2-ms-3x_coco.py \
    BACKBONE 8
Hardware: 8 GPUs with 2 images each; time and memory not measured.
Batch: 8 x 2 = 16; learning rate 1e-4, not scaled.
Expected: the authors report no number for this backbone.
Measured: not measured by this project.

Schedule, images and drop path are those of Swin-T: the authors' are not known
to this project. The backbone is MMDetection's own, whose names the export
gives.
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
        type='PyramidVisionTransformerV2',
        embed_dims=64,
        num_layers=[3, 4, 6, 3],
        num_heads=[1, 2, 5, 8],
        mlp_ratios=[8, 8, 4, 4],
        sr_ratios=[8, 4, 2, 1],
        drop_path_rate=0.2,
        norm_cfg=dict(type='LN', eps=1e-6),
        # The names are its own already.
        convert_weights=False,
        # It loads the file itself, and knows no prefix.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/fastmim_pvt-v2-b2_8xb256-amp-coslr-400e_'
            'in1k-128px/backbone_mmdet.pth')),
    neck=dict(in_channels=[64, 128, 320, 512]))
