# Copyright (c) greenmim authors. All rights reserved.
from .backbones import GreenMIMConvNeXt, GreenMIMSwinTransformer
from .heads import GreenMIMHead
from .mask_samplers import RandomMask
from .necks import GreenMIMNeck, LinearNeck
from .selfsup import GreenMIM, MaskTokenMIM
from .target_generators import HOGTarget, PixelTarget
from .utils import PatchXavierInit

__all__ = [
    'GreenMIM', 'GreenMIMConvNeXt', 'GreenMIMHead', 'GreenMIMNeck',
    'GreenMIMSwinTransformer', 'HOGTarget', 'LinearNeck', 'MaskTokenMIM',
    'PatchXavierInit', 'PixelTarget', 'RandomMask'
]
