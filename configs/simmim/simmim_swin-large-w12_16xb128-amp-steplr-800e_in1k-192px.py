# Copyright (c) greenmim authors. All rights reserved.
r"""SimMIM pre-training of Swin-L, window 12, at 192 px: 800 epochs.

Paper: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling",
    CVPR 2022, https://arxiv.org/abs/2111.09886
Command: bash tools/dist_train.sh \
    configs/simmim/simmim_swin-large-w12_16xb128-amp-steplr-800e_in1k-192px.py 16
Hardware: 16 GPUs with 128 images each; time and memory not measured.
Batch: 16 x 128 = 2048; learning rate 1e-4 * 2048 / 512 = 4.0e-4.
Expected: 85.4 % top-1 after fine-tuning at 224 px, the number in the authors'
    README.
Measured: not measured by this project.

The last feature map is 6 x 6 and gets window 6, as in the authors' weights.
"""  # noqa: E501
_base_ = [
    '../_base_/models/simmim_swin-base-w6.py',
    '../_base_/datasets/imagenet_bs256_simmim_192px.py',
    '../_base_/schedules/simmim_bs2048_adamw_steplr_800e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='large', window_size=[12, 12, 12, 6]),
    neck=dict(in_channels=1536))

train_dataloader = dict(batch_size=128)
