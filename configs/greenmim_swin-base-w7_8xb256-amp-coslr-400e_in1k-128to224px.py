# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Swin-B, window 7, with images that grow.

Paper: the method of Huang et al., "Green Hierarchical Vision Transformer for
    Masked Image Modeling", NeurIPS 2022, https://arxiv.org/abs/2205.13515;
    the schedule of image sizes is this project's.
Command: bash tools/dist_train.sh \
    configs/greenmim_swin-base-w7_8xb256-amp-coslr-400e_in1k-128to224px.py 8
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: not known, the authors of GreenMIM train at 224 px throughout.
Measured: not measured by this project.

200 epochs at 128 px, 100 at 160 and 100 at 224: 4, 6 and 12 visible units an
image, 6.5 in the mean of all epochs.
"""
_base_ = [
    '_base_/models/greenmim_swin-base-w7.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

train_cfg = dict(max_epochs=400)
warm_up = dict(of=400)

# The pipeline crops to 224 px, the model scales down.
default_hooks = dict(
    image_size=dict(
        type='greenmim.ImageSizeHook',
        sizes=[128, 160, 224],
        milestones=[200, 300]))
