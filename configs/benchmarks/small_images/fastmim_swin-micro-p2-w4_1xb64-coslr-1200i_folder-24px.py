# Copyright (c) greenmim authors. All rights reserved.
"""FastMIM pre-training of the same backbone: every token, 24 px, HOG.

Paper: the method of Guo et al., https://arxiv.org/abs/2212.06593: images of a
    lower resolution than in fine-tuning, a token among the pixels, histograms
    of gradients as the target; the backbone and schedule of its base.
Command: python tools/train.py
    configs/benchmarks/small_images/fastmim_swin-micro-p2-w4_1xb64-coslr-1200i_folder-24px.py
    --cfg-options train_dataloader.dataset.data_root=IMAGE_FOLDER
Hardware: a GPU, or a CPU core.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: docs/compare_methods.md, on CIFAR-10.

9 mask units of 8 px, each of four cells of 4 px.
"""  # noqa: E501
_base_ = ['greenmim_swin-micro-p2-w4_1xb64-coslr-1200i_folder-32px.py']

model = dict(
    _delete_=True,
    type='greenmim.MaskTokenMIM',
    mask_token='pixel',
    unit_size=8,
    mask_ratio=0.6,
    mask_scope='image',
    # The maps of the last stage, 3 x 3, are smaller than a window.
    backbone=dict(_base_.model.backbone, img_size=24, pad_small_map=True),
    neck=dict(
        _base_.model.neck,
        out_channels=3 * 9 * 4,
        pos_embed=False,
        mask_token=False),
    head=dict(
        type='greenmim.GreenMIMHead',
        unit_size=8,
        target=dict(type='greenmim.HOGTarget', cell_size=4)),
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='greenmim.PatchXavier'),
        dict(type='Constant', layer='LayerNorm', val=1.),
    ])

train_dataloader = dict(
    dataset=dict(pipeline=[
        _base_.train_pipeline[0],
        dict(_base_.train_pipeline[1], scale=24), *_base_.train_pipeline[2:]
    ]))
