# Copyright (c) greenmim authors. All rights reserved.
from .channel_data_preprocessor import ChannelDataPreprocessor
from .weight_init import PatchXavierInit

__all__ = ['ChannelDataPreprocessor', 'PatchXavierInit']
