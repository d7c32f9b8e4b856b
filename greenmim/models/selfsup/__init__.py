# Copyright (c) greenmim authors. All rights reserved.
from .greenmim import GreenMIM
from .mask_token_mim import MaskTokenMIM
from .masked_image_modeling import MaskedImageModeling

__all__ = ['GreenMIM', 'MaskTokenMIM', 'MaskedImageModeling']
