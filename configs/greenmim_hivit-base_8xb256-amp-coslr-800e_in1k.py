# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of HiViT-B: 800 epochs of ImageNet-1k.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515, on the backbone of Zhang et al., "HiViT:
    A Simpler and More Efficient Design of Hierarchical Vision Transformer",
    ICLR 2023, https://arxiv.org/abs/2205.14949
Command: bash tools/dist_train.sh \
    configs/greenmim_hivit-base_8xb256-amp-coslr-800e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: no result of the authors is known for this model.
Measured: not measured by this project.

HiViT is not in the paper. The hyper-parameters are those of Swin-B; 49 of 196
mask units of 16 px are visible.
"""
_base_ = [
    '_base_/models/greenmim_swin-base-w7.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMHiViT',
        arch='base',
        img_size=224,
        norm_cfg=dict(type='LN', eps=1e-6)),
    neck=dict(in_channels=512, out_channels=16 * 16 * 3),
    head=dict(unit_size=16))

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(pos_embed=dict(decay_mult=0.))))
