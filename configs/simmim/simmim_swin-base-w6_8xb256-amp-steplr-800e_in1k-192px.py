# Copyright (c) greenmim authors. All rights reserved.
r"""SimMIM pre-training of Swin-B, window 6, at 192 px: 800 epochs.

Paper: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling",
    CVPR 2022, https://arxiv.org/abs/2111.09886
Command: bash tools/dist_train.sh \
    configs/simmim/simmim_swin-base-w6_8xb256-amp-steplr-800e_in1k-192px.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1e-4 * 2048 / 512 = 4.0e-4.
Expected: 84.0 % top-1 after fine-tuning at 224 px, the number in the authors'
    README.
Measured: not measured by this project.
"""  # noqa: E501
_base_ = [
    '../_base_/models/simmim_swin-base-w6.py',
    '../_base_/datasets/imagenet_bs256_simmim_192px.py',
    '../_base_/schedules/simmim_bs2048_adamw_steplr_800e.py',
    '../_base_/default_runtime.py',
]
