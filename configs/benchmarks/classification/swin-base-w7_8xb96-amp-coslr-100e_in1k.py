# Copyright (c) greenmim authors. All rights reserved.
r"""Fine-tuning of Swin-B, window 7, at 224 px: 100 epochs of ImageNet-1k.

Paper: Huang et al., "Green Hierarchical Vision Transformer for Masked Image
    Modeling", NeurIPS 2022, https://arxiv.org/abs/2205.13515
Command: bash tools/dist_train.sh \
    configs/benchmarks/classification/swin-base-w7_8xb96-amp-coslr-100e_in1k.py 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Hardware: 8 GPUs with 96 images each; time and memory not measured.
Batch: 8 x 96 = 768; learning rate 1.25e-3 * 768 / 512 = 1.875e-3.
Expected: 83.8 % top-1 after 800 epochs of pre-training, the number in the
    authors' README.
Measured: not measured by this project.

The authors fine-tune with SimMIM's code: gradients are clipped at 5 as there.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-base-w7_classifier.py',
    '../../_base_/datasets/imagenet_bs96_classes_224px.py',
    '../../_base_/schedules/finetune_bs768_adamw_coslr_100e.py',
    '../../_base_/classification_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/'
                      'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k/'
                      'epoch_800.pth')))
