# Copyright (c) greenmim authors. All rights reserved.
from .greenmim import GreenMIM
from .joint_mim import JointMIM
from .mask_token_mim import MaskTokenMIM
from .masked_image_modeling import MaskedImageModeling

__all__ = ['GreenMIM', 'JointMIM', 'MaskTokenMIM', 'MaskedImageModeling']
