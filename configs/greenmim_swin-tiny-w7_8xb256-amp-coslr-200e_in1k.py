# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Swin-T, window 7: 200 epochs of ImageNet-1k.

Paper: Huang et al., "Green Hierarchical Vision Transformer for Masked Image
    Modeling", NeurIPS 2022, https://arxiv.org/abs/2205.13515
Command: bash tools/dist_train.sh \
    configs/greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: no result of the authors is known for this model.
Measured: not measured by this project.

Swin-T is not in the paper. The hyper-parameters are those of Swin-B, for the
200 epochs of the authors' shorter script.
"""
_base_ = [
    '_base_/models/greenmim_swin-base-w7.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='tiny'), neck=dict(in_channels=768))

train_cfg = dict(max_epochs=200)
warm_up = dict(of=200)
