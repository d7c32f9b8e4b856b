# Copyright (c) greenmim authors. All rights reserved.
r"""FastMIM pre-training of ViT-B at 128 px: 800 epochs of ImageNet-1k.

Paper: Guo et al., "FastMIM: Expediting Masked Image Modeling Pre-training for
    Vision", https://arxiv.org/abs/2212.06593
Command: bash tools/dist_train.sh \
    configs/fastmim/fastmim_vit-base-p16_8xb512-amp-coslr-800e_in1k-128px.py 8
Hardware: 8 GPUs with 512 images each; time and memory not measured.
Batch: 8 x 512 = 4096; learning rate 1.5e-4 * 4096 / 256 = 2.4e-3.
Expected: 83.8 % top-1 after fine-tuning, the number in the authors' README.
Measured: not measured by this project.

Units are single patches of 16 px. Attention has 6 heads here and 12 in
fine-tuning, as the authors have it. The decoder reads the class token too.
"""  # noqa: E501
_base_ = [
    '../_base_/models/fastmim_swin-base-w4.py',
    '../_base_/datasets/imagenet_bs256_fastmim_128px.py',
    '../_base_/schedules/fastmim_bs2048_adamw_coslr.py',
    '../_base_/default_runtime.py',
]

norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    unit_size=16,
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMVisionTransformer',
        arch=dict(
            embed_dims=768,
            num_layers=12,
            num_heads=6,
            feedforward_channels=3072),
        img_size=128,
        patch_size=16,
        out_type='raw',
        fixed_positions=True,
        norm_cfg=norm_cfg),
    neck=dict(
        in_channels=768,
        depth=1,
        out_channels=108,
        class_token=True,
        norm_cfg=norm_cfg),
    head=dict(unit_size=16))

train_dataloader = dict(batch_size=512)

optim_wrapper = dict(optimizer=dict(lr=1.5e-4 * 4096 / 256))

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=20,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=20,
        convert_to_iter_based=True)
]

# In a shorter run, the warm-up takes the same share.
warm_up = dict(end=20, of=800)

train_cfg = dict(max_epochs=800)
auto_scale_lr = dict(base_batch_size=4096)
