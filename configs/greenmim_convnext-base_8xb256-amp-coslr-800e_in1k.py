# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of ConvNeXt-B: 800 epochs of ImageNet-1k.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515, on the backbone of Liu et al., "A
    ConvNet for the 2020s", CVPR 2022, https://arxiv.org/abs/2201.03545
Command: bash tools/dist_train.sh \
    configs/greenmim_convnext-base_8xb256-amp-coslr-800e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: unknown, the paper has no ConvNeXt; all but the backbone is its
    recipe of Swin-B.
Measured: not measured by this project.
"""
_base_ = [
    '_base_/models/greenmim_swin-base-w7.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

# For V2 add `use_grn=True, layer_scale_init_value=0.`.
model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMConvNeXt',
        arch='base',
        drop_path_rate=0.))

# No decay on the scales of layers and responses either.
optim_wrapper = dict(paramwise_cfg=dict(flat_decay_mult=0.))

# Its convolutions have the same shapes in every step, see the runtime's file.
env_cfg = dict(cudnn_benchmark=True)
