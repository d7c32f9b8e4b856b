# Copyright (c) greenmim authors. All rights reserved.
r"""Fine-tuning of SimMIM's Swin-L at 224 px, window 14.

Paper: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling",
    CVPR 2022, https://arxiv.org/abs/2111.09886
Command: bash tools/dist_train.sh \
    configs/benchmarks/classification/swin-large-w14_8xb256-amp-coslr-100e_in1k-simmim-800e.py 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.25e-3 * 2048 / 512 = 5e-3.
Expected: 85.4 % top-1, the number in the authors' README.
Measured: not measured by this project.

Bias tables of window 12 are resized to window 14 on loading, those of the last
stage from 6 to 7.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-base-w7_classifier.py',
    '../../_base_/datasets/imagenet_bs96_classes_224px.py',
    '../../_base_/schedules/finetune_bs2048_adamw_coslr_100e.py',
    '../../_base_/classification_runtime.py',
]

norm_cfg = dict(type='LN', eps=1e-5)

model = dict(
    backbone=dict(
        arch='large',
        window_size=[14, 14, 14, 7],
        drop_path_rate=0.2,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg)),
        init_cfg=dict(
            checkpoint='work_dirs/'
            'simmim_swin-large-w12_16xb128-amp-steplr-800e_in1k-192px/'
            'epoch_800.pth')),
    head=dict(in_channels=1536))

train_dataloader = dict(batch_size=256)

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.7))
