# Copyright (c) greenmim authors. All rights reserved.
from .convnext import GreenMIMConvNeXt
from .swin import GreenMIMSwinTransformer

__all__ = ['GreenMIMConvNeXt', 'GreenMIMSwinTransformer']
