# Copyright (c) greenmim authors. All rights reserved.
"""Backbones of the common tests; a new one is a file and a line here."""
from .cmt import CMT
from .convnext import CONVNEXT
from .pvt_v2 import PVT_V2
from .swin import SWIN
from .twins import PCPVT_FAMILY, SVT_FAMILY

FAMILIES = [CMT, CONVNEXT, SWIN, PVT_V2, SVT_FAMILY, PCPVT_FAMILY]
