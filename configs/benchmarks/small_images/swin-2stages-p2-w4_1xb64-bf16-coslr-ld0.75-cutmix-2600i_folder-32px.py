# Copyright (c) greenmim authors. All rights reserved.
"""Fine-tuning of the two-stage Swin for small images, with CutMix.

Paper: none; a usual recipe of small pre-trained networks, with rates that
    fall by 0.75 from layer to layer; CutMix is of Yun et al., ICCV 2019,
    https://arxiv.org/abs/1905.04899, on half of the batches.
Command: python tools/train.py
    configs/benchmarks/small_images/swin-2stages-p2-w4_1xb64-bf16-coslr-ld0.75-cutmix-2600i_folder-32px.py
    --data FOLDER --cfg-options model.backbone.init_cfg.checkpoint=BACKBONE
Hardware: a GPU, or a CPU core; bfloat16 is fast where the CPU has AMX.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: docs/does_it_help.md, on CIFAR-10.

Random weights take layer_decay_rate=1 and a learning rate of their own.
"""  # noqa: E501
_base_ = [
    '../../_base_/models/swin-2stages-p2-w4_classifier_32px.py',
    '../../_base_/datasets/labelled_folder_bs64_32px.py',
    '../../_base_/schedules/finetune_minutes_adamw_coslr.py',
    '../../_base_/classification_runtime.py'
]

model = dict(
    head=dict(loss=dict(type='CrossEntropyLoss', use_soft=True)),
    train_cfg=dict(augments=dict(type='CutMix', alpha=1.0), probs=0.5))

# As CutMix needs it.
data_preprocessor = dict(to_onehot=True)

optim_wrapper = dict(
    type='greenmim.BFloat16OptimWrapper',
    optimizer=dict(lr=2e-3),
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75))

train_cfg = dict(max_iters=2600)
warm_up = dict(of=2600)
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=2600))
