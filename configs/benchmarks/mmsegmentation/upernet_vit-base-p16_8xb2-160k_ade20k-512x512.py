# Copyright (c) greenmim authors. All rights reserved.
r"""UPerNet on FastMIM's ViT-B: 160,000 iterations of ADE20K at 512 px.

Paper: Guo et al., "FastMIM: Expediting Masked Image Modeling Pre-training for
    Vision", https://arxiv.org/abs/2212.06593; the heads and the pyramid out
    of maps of one size are MMSegmentation's.
Command: bash tools/benchmarks/mmsegmentation/mim_dist_train.sh \
    configs/benchmarks/mmsegmentation/upernet_vit-base-p16_8xb2-160k_ade20k-512x512.py \
    BACKBONE 8
Hardware: 8 GPUs with 2 images each; time and memory not measured. The
    authors' number of GPUs is not known to this project.
Batch: 8 x 2 = 16; learning rate 3e-4, not scaled.
Expected: 49.5 mIoU, the number in the authors' README.
Measured: not measured by this project.

Learning rate, its decay by layers, weight decay, the four layers, the width of
the heads and the sliding windows of the test are those of the authors'
configuration, and so are the weights, which were fine-tuned on ImageNet-1k.
The authors add a table of relative positions and layer scales to each layer,
which pre-training does not have; they are left out here.
The export for MMSegmentation takes away the norm of the last layer.
"""  # noqa: E501
_base_ = [
    '_base_/upernet_swin-tiny-w7.py',
    '_base_/ade20k_bs16_512x512.py',
    '_base_/mmseg-adamw_bs16_160k.py',
    '_base_/mmseg_runtime.py',
]

model = dict(
    # `greenmim.GreenMIMVisionTransformer` does as well.
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=512,
        patch_size=16,
        out_indices=[1, 3, 9, 11],
        out_type='featmap',
        final_norm=False,
        drop_path_rate=0.1,
        norm_cfg=dict(type='LN', eps=1e-6),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/vit-base-p16_8xb128-amp-coslr-100e_in1k-'
            'fastmim-800e/backbone_mmseg.pth',
            prefix='backbone.')),
    neck=dict(type='Feature2Pyramid', embed_dim=768, rescales=[4, 2, 1, 0.5]),
    decode_head=dict(in_channels=[768, 768, 768, 768], channels=768),
    auxiliary_head=dict(in_channels=768, in_index=3),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))

# No decay on norms, biases, positions and class token.
optim_wrapper = dict(
    optimizer=dict(lr=3e-4, weight_decay=0.05),
    constructor='greenmim.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        bias_decay_mult=0.,
        custom_keys=dict(
            pos_embed=dict(decay_mult=0.), cls_token=dict(decay_mult=0.))))
