# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Swin-T with its own average as teacher.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515; the target follows Baevski et al.,
    https://arxiv.org/abs/2202.03555
Command: bash tools/dist_train.sh \
    configs/distillation/greenmim-ema_swin-tiny-w7_8xb256-amp-coslr-200e_in1k.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: not known.
Measured: not measured by this project.

The teacher computes all units of every image, so a step takes longer than
with pixels as target.
"""  # noqa: E501
_base_ = ['../greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k.py']

model = dict(
    neck=dict(out_channels=768),
    head=dict(target=dict(type='greenmim.EMATarget')))
