# Copyright (c) greenmim authors. All rights reserved.
from .swin import SwinBlockRunner, visible_patch_embed, visible_patch_merging

__all__ = ['SwinBlockRunner', 'visible_patch_embed', 'visible_patch_merging']
