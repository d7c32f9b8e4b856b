# Copyright (c) greenmim authors. All rights reserved.
# Fine-tuning with AdamW and layer-wise decay on a batch of 768: 20 epochs of
# warm-up, then a cosine to the 100th.

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(
        type='AdamW',
        lr=1.25e-3 * 768 / 512,
        betas=(0.9, 0.999),
        weight_decay=0.05,
        fused=True),
    clip_grad=dict(max_norm=5.),
    constructor='LearningRateDecayOptimWrapperConstructor',
    # No decay on norms, biases and position tables.
    paramwise_cfg=dict(
        layer_decay_rate=0.9,
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.),
            absolute_pos_embed=dict(decay_mult=0.))))

# Both are stepped every iteration. The cosine has no `end`: it ends with the
# run, so that a shorter one changes `max_epochs` and the warm-up alone.
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
        eta_min=2.5e-7 * 768 / 512,
        by_epoch=True,
        begin=20,
        convert_to_iter_based=True)
]

# In a shorter run, the warm-up takes the same share.
warm_up = dict(end=20, of=100)

train_cfg = dict(
    type='greenmim.ResumableEpochLoop', max_epochs=100, val_interval=1)

# `--auto-scale-lr` scales the learning rate by the actual batch size / 768.
auto_scale_lr = dict(base_batch_size=768)
