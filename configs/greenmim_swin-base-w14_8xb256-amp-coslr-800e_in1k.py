# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Swin-B, window 14: 800 epochs of ImageNet-1k.

Paper: Huang et al., "Green Hierarchical Vision Transformer for Masked Image
    Modeling", NeurIPS 2022, https://arxiv.org/abs/2205.13515
Command: bash tools/dist_train.sh \
    configs/greenmim_swin-base-w14_8xb256-amp-coslr-800e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: no fine-tuning result of the authors is known for this model.
Measured: not measured by this project.

The last feature map is 7 x 7 at 224 px and gets window 7: the authors'
checkpoints hold bias tables of that shape, and MMPretrain's dense Swin refuses
a map smaller than its window.
"""
_base_ = [
    '_base_/models/greenmim_swin-base-w7.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

model = dict(backbone=dict(window_size=[14, 14, 14, 7]))
