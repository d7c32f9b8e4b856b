# Copyright (c) greenmim authors. All rights reserved.
r"""Fine-tuning of SimMIM's ViT-B at 224 px.

Paper: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling",
    CVPR 2022, https://arxiv.org/abs/2111.09886
Command: bash tools/dist_train.sh \
    configs/benchmarks/classification/vit-base-p16_8xb256-amp-coslr-100e_in1k-simmim-800e.py 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Hardware: 8 GPUs with 256 images each; time and memory not measured.
Batch: 8 x 256 = 2048; learning rate 1.25e-3 * 2048 / 512 = 5e-3.
Expected: 83.8 % top-1, the number in the authors' README.
Measured: not measured by this project.

Every layer gets a table of relative position biases of its own, which begins
as the one that all of them shared. The average of the patches is classified,
behind a norm of its own.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-base-w7_classifier.py',
    '../../_base_/datasets/imagenet_bs96_classes_224px.py',
    '../../_base_/schedules/finetune_bs2048_adamw_coslr_100e.py',
    '../../_base_/classification_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='BEiTViT',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='avg_featmap',
        drop_path_rate=0.1,
        layer_scale_init_value=0.1,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
        use_shared_rel_pos_bias=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/'
            'simmim_vit-base-p16_8xb256-amp-steplr-800e_in1k/'
            'epoch_800.pth',
            prefix='backbone.')),
    neck=None,
    head=dict(in_channels=768))

train_dataloader = dict(batch_size=256)

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
