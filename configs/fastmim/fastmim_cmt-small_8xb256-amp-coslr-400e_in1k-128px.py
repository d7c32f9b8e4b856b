# Copyright (c) greenmim authors. All rights reserved.
r"""FastMIM pre-training of CMT-S at 128 px: 400 epochs of ImageNet-1k.

Paper: Guo et al., "FastMIM: Expediting Masked Image Modeling Pre-training for
    Vision", https://arxiv.org/abs/2212.06593
Command: bash tools/dist_train.sh \
    configs/fastmim/fastmim_cmt-small_8xb256-amp-coslr-400e_in1k-128px.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: 83.9 % top-1 after fine-tuning, the number in the authors' README.
Measured: not measured by this project.

The schedule and decoder are those of Swin-B: the authors' are not known to
this project.
"""  # noqa: E501
_base_ = [
    '../_base_/models/fastmim_swin-base-w4.py',
    '../_base_/datasets/imagenet_bs256_fastmim_128px.py',
    '../_base_/schedules/fastmim_bs2048_adamw_coslr.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True, type='greenmim.GreenMIMCMT', arch='small',
        img_size=128),
    neck=dict(in_channels=512))

# Its convolutions have the same shapes in every step, see the runtime's file.
env_cfg = dict(cudnn_benchmark=True)
