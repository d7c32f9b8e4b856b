# Copyright (c) greenmim authors. All rights reserved.
# Fine-tuning as in finetune_bs768_adamw_coslr_100e.py, on a batch of 2048.
_base_ = ['finetune_bs768_adamw_coslr_100e.py']

optim_wrapper = dict(optimizer=dict(lr=1.25e-3 * 2048 / 512))

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=2.5e-7 / 1.25e-3,
        by_epoch=True,
        begin=0,
        end=20,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=2.5e-7 * 2048 / 512,
        by_epoch=True,
        begin=20,
        convert_to_iter_based=True)
]

auto_scale_lr = dict(base_batch_size=2048)
