# Copyright (c) greenmim authors. All rights reserved.
from .backbones import GreenMIMSwinTransformer
from .heads import GreenMIMHead
from .necks import GreenMIMNeck
from .selfsup import GreenMIM
from .utils import PatchXavierInit

__all__ = [
    'GreenMIM', 'GreenMIMHead', 'GreenMIMNeck', 'GreenMIMSwinTransformer',
    'PatchXavierInit'
]
