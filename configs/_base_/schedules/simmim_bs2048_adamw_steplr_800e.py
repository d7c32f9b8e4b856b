# Copyright (c) greenmim authors. All rights reserved.
# AdamW on a batch of 2048, 10 epochs of warm-up, a tenth of the learning rate
# for the last 100 of 800 epochs.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='greenmim.MergedOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW',
        lr=1e-4 * 2048 / 512,
        betas=(0.9, 0.999),
        weight_decay=0.05,
        fused=True),
    clip_grad=dict(max_norm=5.),
    # No decay on vectors (norms, biases, layer scales), position tables and
    # tokens.
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        flat_decay_mult=0.,
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.),
            absolute_pos_embed=dict(decay_mult=0.),
            cls_token=dict(decay_mult=0.),
            mask_token=dict(decay_mult=0.))))

# Both are stepped every iteration.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=5e-7 / 1e-4,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True),
    dict(
        type='MultiStepLR',
        milestones=[700],
        gamma=0.1,
        by_epoch=True,
        begin=0,
        convert_to_iter_based=True)
]

# In a shorter run, the warm-up takes the same share.
warm_up = dict(end=10, of=800)

train_cfg = dict(type='greenmim.ResumableEpochLoop', max_epochs=800)

# `--auto-scale-lr` scales the learning rate by the actual batch size / 2048.
auto_scale_lr = dict(base_batch_size=2048)
