# Copyright (c) greenmim authors. All rights reserved.
# AdamW on a batch of 2048, 10 epochs of warm-up, then a cosine to zero. Bias
# tables and tokens decay as well.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='greenmim.MergedOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW',
        lr=1.5e-4 * 2048 / 256,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        fused=True),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))

# Both are stepped every iteration. The cosine ends with the run.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=10,
        convert_to_iter_based=True)
]

# In a shorter run, the warm-up takes the same share.
warm_up = dict(end=10, of=400)

train_cfg = dict(type='greenmim.ResumableEpochLoop', max_epochs=400)

# `--auto-scale-lr` scales the learning rate by the actual batch size / 2048.
auto_scale_lr = dict(base_batch_size=2048)
