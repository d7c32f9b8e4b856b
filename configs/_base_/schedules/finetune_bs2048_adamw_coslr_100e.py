# Copyright (c) greenmim authors. All rights reserved.
# Fine-tuning as in finetune_bs768_adamw_coslr_100e.py, on a batch of 2048.
_base_ = ['finetune_bs768_adamw_coslr_100e.py']

optim_wrapper = dict(optimizer=dict(lr=1.25e-3 * 2048 / 512))

param_scheduler = _base_.param_scheduler
param_scheduler[1].eta_min = 2.5e-7 * 2048 / 512

auto_scale_lr = dict(base_batch_size=2048)
