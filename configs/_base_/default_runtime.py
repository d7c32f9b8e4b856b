# Copyright (c) greenmim authors. All rights reserved.
# MMPretrain's scope, so that its transforms, hooks and data preprocessor are
# found by bare name; this project's own classes are named `greenmim.X`.
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Writes plain types, which PyTorch's safe loading accepts on `--resume`.
    # A file holds the weights and both AdamW moments, about 1 GB for Swin-B.
    checkpoint=dict(
        type='greenmim.SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'))

# List the images that could not be read and were left out, at the end; draw
# and plan masks in the data-loading workers; make a resumed run draw what the
# uninterrupted one would have drawn; leave out steps that are not finite;
# save and leave on SIGTERM and SIGUSR1; show and report speed, energy and
# waiting; write versions and commit into the run's folder; show a bar on a
# terminal.
custom_hooks = [
    dict(type='greenmim.UnreadableImageHook'),
    dict(type='greenmim.PlanAheadHook'),
    dict(type='greenmim.SeedStepHook'),
    dict(type='greenmim.NonFiniteHook'),
    dict(type='greenmim.PreemptionHook'),
    dict(type='greenmim.RunReportHook'),
    dict(type='greenmim.ProvenanceHook'),
    dict(type='greenmim.ProgressHook'),
    dict(type='greenmim.LearningHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False

# Samples and steps draw from seeds made of this one, the epoch and the index,
# or the iteration and the rank.
randomness = dict(seed=0)
