# Copyright (c) greenmim authors. All rights reserved.
"""Green x fast on the same backbone: visible tokens alone, 24 px, HOG.

Paper: the computation of Huang et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.13515, the images and target of Guo et al.,
    https://arxiv.org/abs/2212.06593
Command: python tools/train.py
    configs/benchmarks/small_images/greenmim-fast_swin-micro-p2-w4_1xb64-coslr-1200i_folder-24px.py
    --cfg-options train_dataloader.dataset.data_root=IMAGE_FOLDER
Hardware: a GPU, or a CPU core.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: docs/compare_methods.md, on CIFAR-10.

9 mask units of 8 px, each of four cells of 4 px.
"""  # noqa: E501
_base_ = ['greenmim_swin-micro-p2-w4_1xb64-coslr-1200i_folder-32px.py']

model = dict(
    backbone=dict(img_size=24, pad_small_map=True),
    neck=dict(out_channels=3 * 9 * 4),
    head=dict(
        _delete_=True,
        type='greenmim.GreenMIMHead',
        unit_size=8,
        target=dict(type='greenmim.HOGTarget', cell_size=4)))

train_dataloader = dict(
    dataset=dict(pipeline=[
        _base_.train_pipeline[0],
        dict(_base_.train_pipeline[1], scale=24), *_base_.train_pipeline[2:]
    ]))
