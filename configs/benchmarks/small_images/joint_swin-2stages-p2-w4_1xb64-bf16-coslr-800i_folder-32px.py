# Copyright (c) greenmim authors. All rights reserved.
"""Fine-tuning of the two-stage Swin beside masked image modelling.

Paper: Das et al., WACV 2024, https://arxiv.org/abs/2310.20704, for the sum of
    the losses, 0.1 and 0.9; the model is made for 32-px images.
Command: python tools/train.py
    configs/benchmarks/small_images/joint_swin-2stages-p2-w4_1xb64-bf16-coslr-800i_folder-32px.py
    --data FOLDER
Hardware: a GPU, or a CPU core; bfloat16 is fast where the CPU has AMX.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: not measured by this project.

It starts from random weights; model.backbone.init_cfg loads others.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-2stages-p2-w4_classifier_32px.py',
    '../../_base_/datasets/labelled_folder_bs64_32px.py',
    '../../_base_/schedules/finetune_minutes_adamw_coslr.py',
    '../../_base_/classification_runtime.py'
]

model = dict(
    type='greenmim.JointMIM',
    backbone=dict(type='greenmim.GreenMIMSwinTransformer'),
    mim=dict(
        type='greenmim.GreenMIM',
        mask_ratio=0.75,
        mask_scope='image',
        neck=dict(
            type='greenmim.ConvNeck',
            in_channels=128,
            embed_dims=64,
            depth=1,
            kernel_size=3,
            out_channels=4 * 4 * 3,
            norm_cfg=_base_.norm_cfg),
        head=dict(type='greenmim.GreenMIMHead', unit_size=4, norm_pix=False)))

train_dataloader = dict(sampler=dict(type='greenmim.SeededInfiniteSampler'))

optim_wrapper = dict(
    type='greenmim.BFloat16OptimWrapper', optimizer=dict(lr=2e-3))

train_cfg = dict(max_iters=800)
warm_up = dict(of=800)
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=800))

# Samples and steps draw from seeds of their own, as in a pre-training.
randomness = dict(diff_rank_seed=False)
