# Copyright (c) greenmim authors. All rights reserved.
from .channel_data_preprocessor import ChannelDataPreprocessor
from .encoded import Encoded
from .weight_init import PatchXavierInit, draw_mask_token

__all__ = [
    'ChannelDataPreprocessor', 'Encoded', 'PatchXavierInit', 'draw_mask_token'
]
