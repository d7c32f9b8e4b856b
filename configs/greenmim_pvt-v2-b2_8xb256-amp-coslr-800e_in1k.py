# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of PVT v2-B2: 800 epochs of ImageNet-1k.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515, on the backbone of Wang et al., "PVT v2:
    Improved Baselines with Pyramid Vision Transformer", CVMJ 2022,
    https://arxiv.org/abs/2106.13797
Command: bash tools/dist_train.sh \
    configs/greenmim_pvt-v2-b2_8xb256-amp-coslr-800e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: no result of the authors is known for this model.
Measured: not measured by this project.

PVT v2 is not in the paper. The hyper-parameters are those of Swin-B.
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
        type='greenmim.GreenMIMPVTv2',
        arch='b2',
        # GreenMIM's own, which that of the backbone would follow.
        init_cfg=[
            dict(type='Xavier', layer='Linear', distribution='uniform'),
            dict(type='greenmim.PatchXavier'),
            dict(type='Constant', layer='LayerNorm', val=1.),
        ]),
    neck=dict(in_channels=512))

# Its convolutions have the same shapes in every step, see the runtime's file.
env_cfg = dict(cudnn_benchmark=True)
