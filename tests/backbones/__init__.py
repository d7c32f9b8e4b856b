# Copyright (c) greenmim authors. All rights reserved.
"""Backbones of the common tests; a new one is a file and a line here."""
from .cmt import CMT
from .convnext import CONVNEXT
from .hivit import HIVIT
from .pvt_v2 import PVT_V2
from .swin import SWIN
from .swin_v2 import SWIN_V2
from .twins import PCPVT_FAMILY, SVT_FAMILY
from .vit import VIT

FAMILIES = [
    CMT, CONVNEXT, HIVIT, SWIN, SWIN_V2, PVT_V2, SVT_FAMILY, PCPVT_FAMILY, VIT
]
