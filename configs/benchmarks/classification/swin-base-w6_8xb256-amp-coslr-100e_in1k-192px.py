# Copyright (c) greenmim authors. All rights reserved.
r"""Fine-tuning of Swin-B, window 6, at 192 px: 100 epochs of ImageNet-1k.

Paper: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling",
    CVPR 2022, https://arxiv.org/abs/2111.09886
Command: bash tools/dist_train.sh \
    configs/benchmarks/classification/swin-base-w6_8xb256-amp-coslr-100e_in1k-192px.py 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.25e-3 * 2048 / 512 = 5e-3.
Expected: 82.8 % top-1 after 100 epochs of pre-training, the number in the
    authors' README.
Measured: not measured by this project.

For a backbone that SimMIM pre-trained for 100 epochs; the layer decay for 800
epochs is 0.8. SimMIM's LayerNorms have eps 1e-5.
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
        img_size=192,
        window_size=6,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg)),
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmselfsup/1.x/simmim/'
            'simmim_swin-base_8xb256-amp-coslr-100e_in1k-192/'
            'simmim_swin-base_8xb256-amp-coslr-100e_in1k-192_'
            '20220829-0e15782d.pth')))

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 192
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 219
test_pipeline[2].crop_size = 192

train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
