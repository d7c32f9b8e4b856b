# Copyright (c) greenmim authors. All rights reserved.
# Fine-tuning of minutes: AdamW, 50 iterations of warm-up, a cosine to zero.

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.))))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=False, begin=50)
]

# In a run shorter than its recipe, the warm-up takes the same share.
warm_up = dict(end=50)

train_cfg = dict(by_epoch=False)
test_cfg = dict()
log_processor = dict(by_epoch=False)
