# Copyright (c) greenmim authors. All rights reserved.
r"""SimMIM pre-training of SwinV2-H, window 12, at 192 px: 800 epochs.

Paper: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling",
    CVPR 2022, https://arxiv.org/abs/2111.09886
Command: bash tools/dist_train.sh \
    configs/simmim/simmim_swin-v2-huge-w12_32xb64-amp-steplr-800e_in1k-192px.py 32
Hardware: 32 GPUs with 64 images each; time and memory not measured.
Batch: 32 x 64 = 2048; learning rate 1e-4 * 2048 / 512 = 4.0e-4.
Expected: 85.7 % top-1 after fine-tuning at 224 px, 87.1 % at 512 px, the
    numbers in the authors' README.
Measured: not measured by this project.

The last feature map is 6 x 6 and gets window 6.
"""  # noqa: E501
_base_ = [
    '../_base_/models/simmim_swin-base-w6.py',
    '../_base_/datasets/imagenet_bs256_simmim_192px.py',
    '../_base_/schedules/simmim_bs2048_adamw_steplr_800e.py',
    '../_base_/default_runtime.py',
]

norm_cfg = dict(type='LN', eps=1e-5)

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMSwinTransformerV2',
        arch='huge',
        img_size=192,
        window_size=[12, 12, 12, 6],
        drop_path_rate=0.,
        norm_cfg=norm_cfg),
    neck=dict(in_channels=2816))

train_dataloader = dict(batch_size=64)

# The networks of position biases and the scales of logits do not decay either.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            cpb_mlp=dict(decay_mult=0.), logit_scale=dict(decay_mult=0.))))
