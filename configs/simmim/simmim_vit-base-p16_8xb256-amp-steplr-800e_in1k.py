# Copyright (c) greenmim authors. All rights reserved.
r"""SimMIM pre-training of ViT-B at 224 px: 800 epochs of ImageNet-1k.

Paper: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling",
    CVPR 2022, https://arxiv.org/abs/2111.09886
Command: bash tools/dist_train.sh \
    configs/simmim/simmim_vit-base-p16_8xb256-amp-steplr-800e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1e-4 * 2048 / 512 = 4.0e-4.
Expected: 83.8 % top-1 after fine-tuning, the number in the authors' README.
Measured: not measured by this project.

The layers share one table of relative position biases; there are no absolute
positions. A unit of 32 px has four patches.
"""  # noqa: E501
_base_ = [
    '../_base_/models/simmim_swin-base-w6.py',
    '../_base_/datasets/imagenet_bs256_simmim_192px.py',
    '../_base_/schedules/simmim_bs2048_adamw_steplr_800e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='BEiTViT',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='featmap',
        final_norm=True,
        drop_path_rate=0.1,
        layer_scale_init_value=0.1,
        use_abs_pos_emb=False,
        use_rel_pos_bias=False,
        use_shared_rel_pos_bias=True),
    neck=dict(in_channels=768, tokens_side=2))

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 224
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
