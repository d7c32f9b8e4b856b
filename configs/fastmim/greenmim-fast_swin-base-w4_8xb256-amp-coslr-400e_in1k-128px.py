# Copyright (c) greenmim authors. All rights reserved.
r"""Green x fast: Swin-B, window 4, visible units at 128 px alone, against HOG.

Paper: the computation of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515, the images and target of Guo et al.,
    https://arxiv.org/abs/2212.06593
Command: bash tools/dist_train.sh \
    configs/fastmim/greenmim-fast_swin-base-w4_8xb256-amp-coslr-400e_in1k-128px.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: not known; a crossing that none of the authors has tried.
Measured: not measured by this project.

4 of 16 units are computed. The decoder is GreenMIM's, with mask tokens and
positions. One mask serves a batch, as in GreenMIM.
"""  # noqa: E501
_base_ = [
    '../_base_/models/fastmim_swin-base-w4.py',
    '../_base_/datasets/imagenet_bs256_fastmim_128px.py',
    '../_base_/schedules/fastmim_bs2048_adamw_coslr.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _delete_=True,
    type='greenmim.GreenMIM',
    mask_ratio=0.75,
    mask_scope='batch',
    backbone=_base_.model.backbone,
    neck=dict(
        type='greenmim.GreenMIMNeck',
        in_channels=1024,
        embed_dims=512,
        depth=1,
        num_heads=16,
        out_channels=432,
        norm_cfg=_base_.norm_cfg),
    head=_base_.model.head)
