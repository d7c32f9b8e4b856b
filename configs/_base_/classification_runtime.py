# Copyright (c) greenmim authors. All rights reserved.
_base_ = ['default_runtime.py']

# Compare the number of classes in the folder with the head's; draw the same
# drop path in a resumed run; leave out steps that are not finite; save and
# leave on SIGTERM and SIGUSR1.
custom_hooks = [
    dict(type='greenmim.ClassCountHook'),
    dict(type='greenmim.SeedStepHook'),
    dict(type='greenmim.NonFiniteHook'),
    dict(type='greenmim.PreemptionHook'),
]

# MixUp and CutMix draw from NumPy, differently in every process.
randomness = dict(diff_rank_seed=True)
