# Copyright (c) greenmim authors. All rights reserved.
# AdamW on a batch of 16, 1500 iterations of warm-up, then linearly to zero.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # No decay on norms and position tables.
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.),
            absolute_pos_embed=dict(decay_mult=0.))))

# The second has no `end`: it ends with the run.
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', by_epoch=False, begin=1500, power=1.0, eta_min=0.)
]

# In a shorter run, the warm-up takes the same share.
warm_up = dict(end=1500, of=160000)

train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=16)
