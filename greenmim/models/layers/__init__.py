# Copyright (c) greenmim authors. All rights reserved.
from .cmt import CMTBlock, norm_tokens
from .position_bias import PositionBias
from .pvt_v2 import PVTv2Block
from .pyramid import Pyramid
from .spatial_reduction import check_in_units, conv_in_units
from .swin import SwinBlockRunner, visible_patch_embed, visible_patch_merging
from .twins import visible_twins_block
from .visible_backbone import VisibleBackbone, index_windows

__all__ = [
    'CMTBlock', 'PVTv2Block', 'PositionBias', 'Pyramid', 'SwinBlockRunner',
    'VisibleBackbone', 'check_in_units', 'conv_in_units', 'index_windows',
    'norm_tokens', 'visible_patch_embed', 'visible_patch_merging',
    'visible_twins_block'
]
