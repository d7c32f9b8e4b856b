# Copyright (c) greenmim authors. All rights reserved.
r"""Linear probe of Swin-B, window 7, at 224 px: 90 epochs of ImageNet-1k.

Paper: Huang et al., "Green Hierarchical Vision Transformer for Masked Image
    Modeling", NeurIPS 2022, https://arxiv.org/abs/2205.13515
Command: bash tools/dist_train.sh \
    configs/benchmarks/classification/swin-base-w7_8xb256-amp-linear-coslr-90e_in1k.py 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 0.1 * 2048 / 256 = 0.8.
Expected: no result of the authors is known.
Measured: not measured by this project.

The backbone is frozen. The protocol is that of He et al., "Masked Autoencoders
Are Scalable Vision Learners", CVPR 2022, on an eighth of its batch: LARS, no
weight decay, a batch norm without parameters before the classifier, no
augmentation but crops and flips. The backbone's features are averaged.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-base-w7_classifier.py',
    '../../_base_/datasets/imagenet_bs96_classes_224px.py',
    '../../_base_/classification_runtime.py',
]

model = dict(
    backbone=dict(
        frozen_stages=3,
        drop_path_rate=0.,
        init_cfg=dict(checkpoint='work_dirs/'
                      'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k/'
                      'epoch_800.pth')),
    neck=[
        dict(type='GlobalAveragePooling'),
        dict(type='ClsBatchNormNeck', input_features=1024),
    ],
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')),
    init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.01, bias=0.)],
    train_cfg=None)

train_pipeline = [
    dict(type='greenmim.LoadImage'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        backend='pillow',
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs')
]

train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(
        type='LARS', lr=0.1 * 2048 / 256, momentum=0.9, weight_decay=0.))

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=10,
        convert_to_iter_based=True)
]

# In a shorter run, the warm-up takes the same share.
warm_up = dict(end=10, of=90)

train_cfg = dict(
    type='greenmim.ResumableEpochLoop', max_epochs=90, val_interval=1)

# `--auto-scale-lr` scales the learning rate by the actual batch size / 2048.
auto_scale_lr = dict(base_batch_size=2048)
