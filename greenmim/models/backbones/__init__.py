# Copyright (c) greenmim authors. All rights reserved.
from .swin import GreenMIMSwinTransformer

__all__ = ['GreenMIMSwinTransformer']
