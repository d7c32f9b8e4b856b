# Copyright (c) greenmim authors. All rights reserved.
_base_ = ['default_runtime.py']

# In place of the hooks of pre-training: compare the number of classes in the
# folder with the head's.
custom_hooks = [dict(type='greenmim.ClassCountHook')]
