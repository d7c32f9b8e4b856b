# Copyright (c) greenmim authors. All rights reserved.
from .swin import (visible_patch_embed, visible_patch_merging,
                   visible_swin_block, visible_window_attention)

__all__ = [
    'visible_patch_embed', 'visible_patch_merging', 'visible_swin_block',
    'visible_window_attention'
]
