# Copyright (c) greenmim authors. All rights reserved.
"""GreenMIM pre-training of a two-stage Swin on small images, 64 units.

Paper: the method of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515, with the target of Guo et al.,
    https://arxiv.org/abs/2212.06593; the model is made for 32-px images: 64
    mask units of 4 px, the final stride of patches of 2 px in two stages.
Command: python tools/train.py
    configs/benchmarks/small_images/greenmim_swin-2stages-p2-w4_1xb64-bf16-coslr-6000i_folder-32px.py
    --cfg-options train_dataloader.dataset.data_root=IMAGE_FOLDER
Hardware: a GPU, or a CPU core; bfloat16 is fast where the CPU has AMX.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: docs/does_it_help.md, on CIFAR-10.
"""  # noqa: E501
_base_ = ['greenmim_swin-micro-p2-w4_1xb64-coslr-1200i_folder-32px.py']

model = dict(
    mask_ratio=0.75,
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=64, depths=[1, 3], num_heads=[2, 4]),
        out_indices=(1, )),
    neck=dict(
        _delete_=True,
        type='greenmim.ConvNeck',
        in_channels=128,
        embed_dims=64,
        depth=1,
        kernel_size=3,
        out_channels=3 * 9,
        norm_cfg=_base_.norm_cfg),
    head=dict(
        _delete_=True,
        type='greenmim.GreenMIMHead',
        unit_size=4,
        target=dict(type='greenmim.HOGTarget', cell_size=4)))

# The whole image, nearly: small images have nothing to spare.
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=[
        _base_.train_pipeline[0],
        dict(_base_.train_pipeline[1], crop_ratio_range=(
            0.8, 1.0)), *_base_.train_pipeline[2:]
    ]))

optim_wrapper = dict(
    type='greenmim.BFloat16OptimWrapper', optimizer=dict(weight_decay=0.15))

train_cfg = dict(max_iters=6000)
warm_up = dict(of=6000)
default_hooks = dict(checkpoint=dict(interval=6000))
