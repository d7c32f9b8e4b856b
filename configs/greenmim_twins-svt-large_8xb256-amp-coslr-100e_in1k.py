# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Twins-SVT-L: 100 epochs of ImageNet-1k.

Paper: Huang et al., "Green Hierarchical Vision Transformer for Masked Image
    Modeling", NeurIPS 2022, https://arxiv.org/abs/2205.13515
Command: bash tools/dist_train.sh \
    configs/greenmim_twins-svt-large_8xb256-amp-coslr-100e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: no result of the authors is known to this project.
Measured: not measured by this project.

Dimensions, windows and epochs are those of the authors' Twins-L; all else is
their recipe of Swin-B.
"""
_base_ = [
    '_base_/models/greenmim_twins-svt-large.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

train_cfg = dict(max_epochs=100)
warm_up = dict(of=100)
