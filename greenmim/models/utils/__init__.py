# Copyright (c) greenmim authors. All rights reserved.
from .official_checkpoint import (convert_official_state_dict, neck_settings,
                                  swin_settings)
from .weight_init import PatchXavierInit

__all__ = [
    'PatchXavierInit', 'convert_official_state_dict', 'neck_settings',
    'swin_settings'
]
