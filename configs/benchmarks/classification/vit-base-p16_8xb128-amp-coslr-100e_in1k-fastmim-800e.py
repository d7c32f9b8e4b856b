# Copyright (c) greenmim authors. All rights reserved.
r"""Fine-tuning of FastMIM's ViT-B at 224 px.

Paper: Guo et al., "FastMIM: Expediting Masked Image Modeling Pre-training for
    Vision", https://arxiv.org/abs/2212.06593
Command: bash tools/dist_train.sh \
    configs/benchmarks/classification/vit-base-p16_8xb128-amp-coslr-100e_in1k-fastmim-800e.py 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Hardware: 8 GPUs with 128 images each; time and memory not measured.
Batch: 8 x 128 = 1024; learning rate 6e-4 * 1024 / 256 = 2.4e-3.
Expected: 83.8 % top-1, the number in the authors' README.
Measured: not measured by this project.

Attention has 12 heads, 6 in pre-training, as the authors have it; the weights
fit both. Positions are resized on loading.
The authors' batch and warm-up are not known to this project: 1024, as in He
et al., "Masked Autoencoders Are Scalable Vision Learners", and 20 epochs.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-base-w7_classifier.py',
    '../../_base_/datasets/imagenet_bs96_classes_224px.py',
    '../../_base_/schedules/finetune_bs1024_adamw_coslr_100e.py',
    '../../_base_/classification_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='avg_featmap',
        final_norm=False,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/'
            'fastmim_vit-base-p16_8xb512-amp-coslr-800e_in1k-128px/'
            'epoch_800.pth',
            prefix='backbone.')),
    neck=None,
    head=dict(in_channels=768))

train_dataloader = dict(batch_size=128)

optim_wrapper = dict(
    optimizer=dict(lr=6e-4 * 1024 / 256),
    paramwise_cfg=dict(layer_decay_rate=0.7))
