# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Swin V2-B, 256 px: 800 epochs of ImageNet-1k.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515, on the backbone of Liu et al., "Swin
    Transformer V2", CVPR 2022, https://arxiv.org/abs/2111.09883
Command: bash tools/dist_train.sh \
    configs/greenmim_swin-v2-base-w8_8xb256-amp-coslr-800e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: unknown, the paper has no Swin V2; all but the backbone is its
    recipe of Swin-B. 16 of 64 mask units are visible.
Measured: not measured by this project.
"""
_base_ = [
    '_base_/models/greenmim_swin-base-w7.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMSwinTransformerV2',
        arch='base',
        img_size=256,
        window_size=8,
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(use_post_norm=True, norm_cfg=norm_cfg))))

train_pipeline = [
    dict(type='greenmim.LoadImage', decoder='opencv'),
    dict(
        type='greenmim.RandomResizedCrop',
        scale=256,
        crop_ratio_range=(0.2, 1.0),
        backend='pillow',
        interpolation='bicubic'),
    dict(type='greenmim.RandomFlip', prob=0.5),
    dict(type='PackInputs')
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# The biases of queries and values have names of their own. Nor do the networks
# of the position biases and the scales of the logits decay.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            q_bias=dict(decay_mult=0.),
            v_bias=dict(decay_mult=0.),
            cpb_mlp=dict(decay_mult=0.),
            logit_scale=dict(decay_mult=0.))))
