# Copyright (c) greenmim authors. All rights reserved.
_base_ = ['default_runtime.py']

default_hooks = dict(
    _delete_=True,  # the hooks that are for pre-training
    # Refuse a folder that holds checkpoints, unless `resume` or `overwrite`.
    run_folder=dict(type='greenmim.RunFolderHook'),
    # Let settings follow those on which they depend, such as the warm-up.
    settings=dict(type='greenmim.LinkedSettingsHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='greenmim.SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Compare the number of classes of the folder with that of the head.
    class_count=dict(type='greenmim.ClassCountHook'),
    # List the images that could not be read and were skipped.
    unreadable_images=dict(type='greenmim.UnreadableImageHook'),
    # Let a resumed run draw the same random numbers as an uninterrupted one.
    seed_step=dict(type='greenmim.SeedStepHook'),
    # Skip steps whose loss or gradient is not finite.
    non_finite=dict(type='greenmim.NonFiniteHook'),
    # Save and exit on SIGTERM and SIGUSR1.
    preemption=dict(type='greenmim.PreemptionHook'))

# MixUp and CutMix draw from NumPy, differently in every process.
randomness = dict(diff_rank_seed=True)
