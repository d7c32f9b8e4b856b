# Copyright (c) greenmim authors. All rights reserved.
from .cmt import CMTBlock, norm_tokens
from .compiled import Compiled
from .position_bias import PositionBias
from .positions import visible_positions
from .pvt_v2 import PVTv2Block
from .pyramid import Pyramid
from .spatial_reduction import check_in_units, conv_in_units
from .swin import (WindowBlockRunner, after_attention, before_attention,
                   visible_patch_embed, visible_patch_merging)
from .swin_v2 import cosine_before_attention, post_norm_after_attention
from .twins import visible_twins_block
from .visible_backbone import StageOutputs, VisibleBackbone, index_windows
from .visible_swin import VisibleSwin
from .vit import CheckpointedLayer

__all__ = [
    'CMTBlock', 'CheckpointedLayer', 'Compiled', 'PVTv2Block', 'PositionBias',
    'Pyramid', 'StageOutputs', 'VisibleBackbone', 'VisibleSwin',
    'WindowBlockRunner', 'after_attention', 'before_attention',
    'check_in_units', 'conv_in_units', 'cosine_before_attention',
    'index_windows', 'norm_tokens', 'post_norm_after_attention',
    'visible_patch_embed', 'visible_patch_merging', 'visible_positions',
    'visible_twins_block'
]
