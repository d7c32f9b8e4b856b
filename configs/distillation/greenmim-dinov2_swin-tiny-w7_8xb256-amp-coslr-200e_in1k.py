# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Swin-T with the features of DINOv2 as target.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the teacher of Oquab et al.,
    https://arxiv.org/abs/2304.07193
Command: bash tools/dist_train.sh \
    configs/distillation/greenmim-dinov2_swin-tiny-w7_8xb256-amp-coslr-200e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: depends on the teacher.
Measured: not measured by this project.

The weights of vit_small_patch14_dinov2, as timm or its authors publish them,
are read from `checkpoints/dinov2_vits14_pretrain.pth`. A teacher with another
number of channels needs it as out_channels of the neck.
"""  # noqa: E501
_base_ = ['../greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k.py']

model = dict(
    neck=dict(out_channels=384),
    head=dict(
        target=dict(
            type='greenmim.TeacherTarget',
            backbone=dict(
                type='greenmim.TimmTeacher',
                model_name='vit_small_patch14_dinov2',
                checkpoint='checkpoints/dinov2_vits14_pretrain.pth'))))
