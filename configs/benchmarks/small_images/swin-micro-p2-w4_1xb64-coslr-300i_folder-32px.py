# Copyright (c) greenmim authors. All rights reserved.
"""Fine-tuning of the three-stage Swin for small images.

Paper: none; the usual recipe of Swin without what only long runs need.
Command: python tools/train.py
    configs/benchmarks/small_images/swin-micro-p2-w4_1xb64-coslr-300i_folder-32px.py
    --data FOLDER --cfg-options model.backbone.init_cfg.checkpoint=BACKBONE
Hardware: a GPU, or a CPU core.
Batch: 1 x 64; learning rate 1e-3, not scaled.
Expected: depends on the images.
Measured: docs/does_it_help.md, on CIFAR-10.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-2stages-p2-w4_classifier_32px.py',
    '../../_base_/datasets/labelled_folder_bs64_32px.py',
    '../../_base_/schedules/finetune_minutes_adamw_coslr.py',
    '../../_base_/classification_runtime.py'
]

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=32,
            depths=[1, 1, 2],
            num_heads=[2, 4, 8]),
        out_indices=(2, )))

train_pipeline = [*_base_.train_pipeline[:3], dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

train_cfg = dict(max_iters=300)
warm_up = dict(of=300)
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=300))
