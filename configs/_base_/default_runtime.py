# Copyright (c) greenmim authors. All rights reserved.
# MMPretrain's scope, so that its transforms, hooks and data preprocessor are
# found by bare name; this project's own classes are named `greenmim.X`.
default_scope = 'mmpretrain'

# Every hook has a name: `default_hooks.learning.data_root=...` sets one of its
# arguments, and a config that inherits adds a hook under a name of its own.
default_hooks = dict(
    # Refuse a folder that holds checkpoints, unless `resume` or `overwrite`.
    run_folder=dict(type='greenmim.RunFolderHook'),
    # Let settings follow those on which they depend, such as the warm-up.
    settings=dict(type='greenmim.LinkedSettingsHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Writes plain types, which PyTorch's safe loading accepts on `--resume`.
    # A file holds the weights and both AdamW moments, about 1 GB for Swin-B.
    checkpoint=dict(
        type='greenmim.SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # List the images that could not be read and were skipped.
    unreadable_images=dict(type='greenmim.UnreadableImageHook'),
    # Draw and plan masks in the data-loading workers.
    plan_ahead=dict(type='greenmim.PlanAheadHook'),
    # Let a resumed run draw the same random numbers as an uninterrupted one.
    seed_step=dict(type='greenmim.SeedStepHook'),
    # Skip steps whose loss or gradient is not finite.
    non_finite=dict(type='greenmim.NonFiniteHook'),
    # Save and exit on SIGTERM and SIGUSR1.
    preemption=dict(type='greenmim.PreemptionHook'),
    # Log and report speed, energy and waiting times.
    run_report=dict(type='greenmim.RunReportHook'),
    # Write versions and the commit into the work folder.
    provenance=dict(type='greenmim.ProvenanceHook'),
    # Show a progress bar on a terminal.
    progress=dict(type='greenmim.ProgressHook'),
    # Measure on held-out images whether the model is learning.
    learning=dict(type='greenmim.LearningHook'),
    # Draw what it predicts of held-out images in the course of the run.
    learning_picture=dict(type='greenmim.LearningPictureHook'))

# For hooks without a name, which come after those above.
custom_hooks = []

env_cfg = dict(
    # Recipes of backbones that convolve tokens in every block set it. As every
    # image keeps as many visible units, the shapes of the convolutions are the
    # same in every step, and cuDNN searches for the fastest algorithm once, or
    # after each change of the mask ratio or the images' size by a hook. What
    # it gains is not measured. Attention gains nothing.
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
overwrite = False

# Samples and steps draw from seeds made of this one, the epoch and the index,
# or the iteration and the rank.
randomness = dict(seed=0)
