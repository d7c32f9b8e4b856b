# Copyright (c) greenmim authors. All rights reserved.
r"""Fine-tuning of SimMIM's SwinV2-H at 512 px.

Paper: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling",
    CVPR 2022, https://arxiv.org/abs/2111.09886
Command: bash tools/dist_train.sh \
    configs/benchmarks/classification/swin-v2-huge-w16_8xb32-amp-coslr-100e_in1k-simmim-800e-512px.py 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Hardware: 8 GPUs with 32 images each; time and memory not measured.
Batch: 8 x 32 = 256; learning rate 1.25e-3 * 256 / 512 = 6.25e-4.
Expected: 87.1 % top-1, the number in the authors' README.
Measured: not measured by this project.

The hyper-parameters are those of Swin-L: the authors' are not known to this
project. Positions are relative and continuous, so that a window of another
size needs no other weights; `pretrained_window_sizes` scale them.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-base-w7_classifier.py',
    '../../_base_/datasets/imagenet_bs96_classes_224px.py',
    '../../_base_/schedules/finetune_bs256_adamw_coslr_100e.py',
    '../../_base_/classification_runtime.py',
]

norm_cfg = dict(type='LN', eps=1e-5)

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMSwinTransformerV2',
        arch='huge',
        img_size=512,
        window_size=[16, 16, 16, 16],
        pretrained_window_sizes=[12, 12, 12, 6],
        drop_path_rate=0.2,
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/'
            'simmim_swin-v2-huge-w12_32xb64-amp-steplr-800e_in1k-192px/'
            'epoch_800.pth',
            prefix='backbone.')),
    head=dict(in_channels=2816))

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 512
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 585
test_pipeline[2].crop_size = 512

train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.7))
