# Copyright (c) greenmim authors. All rights reserved.
# AdamW in fp32, 50 iterations of warm-up, then a cosine to zero: runs of
# minutes, of a given number of iterations for any number of images.

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='greenmim.MergedOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW',
        lr=2e-3,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.),
            mask_token=dict(decay_mult=0.))))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=False, begin=50)
]

# In a run shorter than its recipe, the warm-up takes the same share.
warm_up = dict(end=50)

train_cfg = dict(by_epoch=False)
log_processor = dict(by_epoch=False)
