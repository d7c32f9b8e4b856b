# Copyright (c) greenmim authors. All rights reserved.
# AdamW on a batch of 2048, 40 epochs of warm-up, then a cosine to zero.

# fp16 with a dynamic loss scale, the wrapper's default. It is not spelt out,
# so that `optim_wrapper.type=OptimWrapper` is all that full precision takes.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='greenmim.MergedOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW',
        lr=1.5e-4 * 2048 / 256,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        fused=True),
    # No decay on norms, biases, position tables and tokens.
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.),
            absolute_pos_embed=dict(decay_mult=0.),
            mask_token=dict(decay_mult=0.))))

# Both are stepped every iteration. The cosine has no `end`: it ends with the
# run, so that a recipe of another length changes `max_epochs` and `warm_up.of`
# alone.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=40,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=40,
        convert_to_iter_based=True)
]

# In a shorter run, the warm-up takes the same share.
warm_up = dict(end=40, of=800)

train_cfg = dict(type='greenmim.ResumableEpochLoop', max_epochs=800)

# `--auto-scale-lr` scales the learning rate by the actual batch size / 2048.
auto_scale_lr = dict(base_batch_size=2048)
