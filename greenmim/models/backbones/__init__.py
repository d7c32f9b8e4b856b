# Copyright (c) greenmim authors. All rights reserved.
from .cmt import CMT, GreenMIMCMT
from .convnext import GreenMIMConvNeXt
from .hivit import GreenMIMHiViT
from .pvt_v2 import GreenMIMPVTv2, PyramidVisionTransformerV2
from .swin import GreenMIMSwinTransformer, GreenMIMSwinTransformerV2
from .twins import GreenMIMPCPVT, GreenMIMSVT
from .vit import GreenMIMVisionTransformer

__all__ = [
    'CMT', 'GreenMIMCMT', 'GreenMIMConvNeXt', 'GreenMIMHiViT', 'GreenMIMPCPVT',
    'GreenMIMPVTv2', 'GreenMIMSVT', 'GreenMIMSwinTransformer',
    'GreenMIMSwinTransformerV2', 'GreenMIMVisionTransformer',
    'PyramidVisionTransformerV2'
]
