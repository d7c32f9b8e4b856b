# Copyright (c) greenmim authors. All rights reserved.
# The same for 36 epochs, a tenth of the rate after 27 and 33.
_base_ = './mmdet-adamw_bs16_1x.py'

param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0,
        end=1000),
    dict(type='MultiStepLR', by_epoch=True, milestones=[27, 33], gamma=0.1)
]

train_cfg = dict(max_epochs=36)
warm_up = dict(of=263880)
