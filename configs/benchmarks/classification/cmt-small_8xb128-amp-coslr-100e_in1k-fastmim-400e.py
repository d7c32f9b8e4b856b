# Copyright (c) greenmim authors. All rights reserved.
r"""Fine-tuning of FastMIM's CMT-S at 224 px.

Paper: Guo et al., "FastMIM: Expediting Masked Image Modeling Pre-training for
    Vision", https://arxiv.org/abs/2212.06593
Command: bash tools/dist_train.sh \
    configs/benchmarks/classification/cmt-small_8xb128-amp-coslr-100e_in1k-fastmim-400e.py 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Hardware: 8 GPUs with 128 images each; time and memory not measured.
Batch: 8 x 128 = 1024; learning rate 1e-3 * 1024 / 256 = 4e-3.
Expected: 83.9 % top-1, the number in the authors' README.
Measured: not measured by this project.

Position biases are resized on loading.
The learning rate and decay are those of Swin-B: the authors' are not known to
this project.
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
        type='greenmim.GreenMIMCMT',
        arch='small',
        img_size=224,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/'
            'fastmim_cmt-small_8xb256-amp-coslr-400e_in1k-128px/'
            'epoch_400.pth',
            prefix='backbone.')),
    head=dict(in_channels=512))

train_dataloader = dict(batch_size=128)

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
