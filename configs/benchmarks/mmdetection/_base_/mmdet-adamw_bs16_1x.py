# Copyright (c) greenmim authors. All rights reserved.
# AdamW on a batch of 16, 12 epochs, a tenth of the rate after 8 and 11.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # No decay on norms and position tables.
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.),
            absolute_pos_embed=dict(decay_mult=0.))))

param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0,
        end=1000),
    dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11], gamma=0.1)
]

# In a shorter run, the warm-up takes the same share; this is the length on
# COCO, 12 * 7330 iterations.
warm_up = dict(end=1000, of=87960)

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# `--auto-scale-lr` scales the learning rate by the actual batch size / 16.
auto_scale_lr = dict(enable=False, base_batch_size=16)
