# Copyright (c) greenmim authors. All rights reserved.
from .swin import SwinBlockRunner, visible_patch_embed, visible_patch_merging
from .visible_backbone import VisibleBackbone, index_windows

__all__ = [
    'SwinBlockRunner', 'VisibleBackbone', 'index_windows',
    'visible_patch_embed', 'visible_patch_merging'
]
