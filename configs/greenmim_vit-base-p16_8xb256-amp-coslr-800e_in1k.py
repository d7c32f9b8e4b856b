# Copyright (c) greenmim authors. All rights reserved.
r"""MAE-style pre-training of ViT-B/16: 800 epochs of ImageNet-1k.

Paper: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR
    2022, https://arxiv.org/abs/2111.06377
Command: bash tools/dist_train.sh \
    configs/greenmim_vit-base-p16_8xb256-amp-coslr-800e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3. The paper
    has a batch of 4096 and the same rate per image.
Expected: close to MAE's, of which it differs by the batch and by a decoder
    that does not read the class token. 49 of 196 patches are visible.
Measured: not measured by this project.

For mask units of 32 px, as the pyramids have: `--cfg-options
model.backbone.unit_size=32 model.neck.in_channels=3072
model.neck.out_channels=3072 model.head.unit_size=32`.
"""
_base_ = [
    '_base_/models/greenmim_swin-base-w7.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

model = dict(
    mask_scope='image',
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMVisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        fixed_positions=True),
    neck=dict(in_channels=768, depth=8, out_channels=16 * 16 * 3),
    head=dict(unit_size=16))

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(cls_token=dict(decay_mult=0.))))
